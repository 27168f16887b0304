"""What is known already: one small file per weights and evaluation, named by all that decides it.

DIR/results/knn-3f0c...e1.json      digest of FORMAT, the weights' identity and the settings
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vissl_lite import EVALUATIONS, SOURCES, TRANSFORMS
from vissl_lite.config import Config
from vissl_lite.io import replace_text
from vissl_lite.suite.subjects import digest_of_file

FORMAT = 1  # one more whenever an evaluation of the same settings gives other numbers


@dataclass
class Result:
    """What one evaluation says of some weights.

    Attributes:
        identity, settings: together they decide the metrics.
        metrics: in the order of the evaluation, the main one first.
        problem: why there are none, such as images without tags.
        finished: seconds since 1970.
    """

    evaluation: str
    label: str
    identity: dict[str, Any]
    settings: dict[str, Any]
    run: str | None = None
    step: int | None = None
    epoch: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    problem: str | None = None
    seconds: float = 0.0
    device: str = ""
    finished: float = 0.0

    @property
    def main(self) -> tuple[str, float] | None:
        """Name and value of the first metric."""
        return next(iter(self.metrics.items()), None)


class Store:
    """The results in a folder."""

    def __init__(self, out: Path):
        self.folder = out / "results"

    def file(self, evaluation: str, identity: Mapping, settings: Mapping) -> Path:
        decides = {"format": FORMAT, "identity": identity, "settings": settings}
        return self.folder / f"{evaluation}-{digest(decides)}.json"

    def find(self, evaluation: str, identity: Mapping, settings: Mapping) -> Result | None:
        """A result without a problem; what the images lacked may be there by now."""
        file = self.file(evaluation, identity, settings)
        found = _read(file) if file.is_file() else None
        return None if found is None or found.problem else found

    def keep(self, result: Result) -> None:
        file = self.file(result.evaluation, result.identity, result.settings)
        replace_text(file, json.dumps({"format": FORMAT, **asdict(result)}, indent=1) + "\n")

    def of_run(self, run: str, identity: str) -> list[Result]:
        """All results of checkpoints of a run, also of those that it has removed since."""
        found = map(_read, sorted(self.folder.glob("*.json")))
        return [r for r in found if r and r.run == run and r.identity.get("run") == identity]


def settings_of(config: Config, evaluation: str) -> dict[str, Any]:
    """All besides the values of the weights that decides what an evaluation finds, checked."""
    entry = EVALUATIONS.check(
        config.evaluations[evaluation], f"evaluations.{evaluation}", evaluation
    )
    labelled = {
        "train": _source(config.labelled.train, "labelled.train"),
        "test": _source(config.labelled.test, "labelled.test"),
        "size": config.labelled.size,
        "transforms": [TRANSFORMS.check(t) for t in config.labelled.transforms],
    }
    data = {key: getattr(config.data, key) for key in ("mean", "std", "backend", "resize")}
    model = {key: getattr(config, key) for key in ("trunk", "heads", "layer", "pool")}
    rest = {"precision": config.precision, "seed": config.seed}
    whole = {"evaluation": entry, "labelled": labelled, "data": data, **model, **rest}
    if annotations := annotations_of(entry):
        whole["annotations"] = annotations
    return json.loads(json.dumps(whole))  # as it is read again: tuples are lists


def annotations_of(entry: Mapping[str, Any]) -> dict[str, str]:
    """Setting -> digest of the content, of those settings that are JSON files."""
    paths = {k: Path(v).expanduser() for k, v in entry.items() if str(v).lower().endswith(".json")}
    return {
        key: _content(path, path.stat().st_mtime_ns)
        for key, path in paths.items()
        if path.is_file()
    }


@functools.cache
def _content(path: Path, changed_ns: int) -> str:
    return digest_of_file(path)


def digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _source(config: Any, where: str) -> dict[str, Any] | None:
    if config is None:
        return None
    full = SOURCES.check(config, where)
    return {key: value for key, value in full.items() if key not in ("index", "refresh")}


def _read(file: Path) -> Result | None:
    """None for a result of another format."""
    saved = json.loads(file.read_text())
    return Result(**saved) if saved.pop("format") == FORMAT else None
