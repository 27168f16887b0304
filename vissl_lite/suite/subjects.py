"""Which weights a suite looks at: runs, checkpoints, files, names, and networks before training."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vissl_lite import EVALUATIONS, io
from vissl_lite.choices import is_group
from vissl_lite.config import root_node
from vissl_lite.engine.checkpoint import damage
from vissl_lite.engine.weights import run_config
from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.formats.published import PUBLISHED
from vissl_lite.suite.live import steps_per_epoch

UNTRAINED = "untrained:"
CHUNK = 2**24  # bytes of a file that are hashed at a time


@dataclass(frozen=True)
class Named:
    """Weights as the user names them: `LABEL=WEIGHTS` or `WEIGHTS`.

    Attributes:
        given: a run, checkpoint, file or name; of `untrained:RUN` the run.
    """

    label: str
    given: str
    untrained: bool = False

    @classmethod
    def parse(cls, word: str) -> Named:
        label, equals, given = word.partition("=")
        if not equals or "/" in label or Path(word).exists():  # a folder may be called lr=0.1
            label, given = "", word
        untrained = given.startswith(UNTRAINED)
        given = given.removeprefix(UNTRAINED).rstrip("/")
        if not given:
            raise ConfigError(f"benchmark_suite: {word!r} names no weights")
        usual = f"untrained {_short(given)}" if untrained else _short(given)
        return cls(label or usual, given, untrained)

    @property
    def path(self) -> Path:
        return Path(self.given).expanduser()

    @property
    def run(self) -> Path | None:
        """The folder of a run of which checkpoints are taken."""
        one = self.untrained or (self.path / "meta.json").is_file() or not self.path.is_dir()
        return None if one else self.path.resolve()


@dataclass(frozen=True)
class Subject:
    """Weights as they are on the disk.

    Attributes:
        home: what the config is taken from: the run of a checkpoint, or the weights themselves.
        init: the weights; None: those that the seed makes.
        identity: equal for equal weights.
        run: folder of the run that they are of.
    """

    label: str
    home: str
    init: str | None
    identity: dict[str, Any] = field(default_factory=dict)
    run: str | None = None
    step: int | None = None
    epoch: float | None = None

    def __str__(self) -> str:
        return self.label if self.step is None else f"{self.label}, step {self.step:,}"

    @property
    def gone(self) -> bool:
        """Whether a checkpoint has been pruned by its run meanwhile."""
        return self.step is not None and self.init is not None and not is_whole(Path(self.init))


def is_weights(word: str) -> bool:
    """Whether a word of the command line names weights; else it is a setting, `key=value`."""
    key, equals, _ = word.partition("=")
    if not equals or Path(word).exists():
        return True
    first = re.split("[./@]", key)[0]
    group = "/" not in key and is_group(key)
    return not (group or key[0] in "+~" or first in (*root_node(), "hydra", "launch"))


def subjects_of(named: Named, every: bool = False, wait: bool = False) -> list[Subject]:
    """What there is of the weights that the user names, oldest first.

    Args:
        every: all complete checkpoints of a run instead of the newest.
        wait: a run that has none yet is no mistake.

    Raises:
        ConfigError: there are no such weights.
    """
    if named.untrained:
        run = run_config(named.path.resolve()).parent
        return [Subject(named.label, str(run), None, {"untrained": True}, str(run), 0, 0.0)]
    if (named.path / "meta.json").is_file():
        return [_of_checkpoint(named.label, named.path.resolve())]
    if named.run is not None:
        return _of_run(named, named.run, every, wait)
    file = io.local_path(PUBLISHED.get(named.given, named.given))
    if not file.is_file():
        raise ConfigError(
            f"benchmark_suite: {named.given} is no run, no checkpoint, no file of weights and no"
            f" name of published ones{_meant(named)}"
        )
    return [Subject(named.label, named.given, named.given, {"file": digest_of_file(file)})]


def _meant(named: Named) -> str:
    """A setting or a published name that is close to what was given."""
    if named.label.partition(".")[0] in EVALUATIONS:
        return f"; did you mean 'evaluations.{named.label}={named.given}'?"
    keys = did_you_mean(named.label, root_node()) if named.label != named.given else ""
    return keys or did_you_mean(named.given, PUBLISHED)


def is_whole(checkpoint: Path) -> bool:
    """Whether all of it is there; its run may remove it at any moment."""
    try:
        return damage(checkpoint) is None
    except OSError:
        return False


def check_labels(everything: Sequence[Named]) -> None:
    """
    Raises:
        ConfigError: two different weights have the same label.
    """
    known: dict[str, Named] = {}
    for named in everything:
        other = known.setdefault(named.label, named)
        if other != named:
            raise ConfigError(
                f"benchmark_suite: {other.given} and {named.given} are both called"
                f" {named.label!r}; give one of them a label: LABEL={named.given}"
            )


def _of_run(named: Named, run: Path, every: bool, wait: bool) -> list[Subject]:
    found = [path for path in sorted(run.glob("checkpoints/step-????????")) if is_whole(path)]
    if not found and not (wait and (run / "config.yaml").is_file()):
        raise ConfigError(
            f"benchmark_suite: {named.given} has no complete checkpoint; --watch waits for those of"
            " a run in progress"
        )
    pairs = ((path, _meta(path)) for path in (found if every else found[-1:]))
    return [_of_checkpoint(named.label, path, meta) for path, meta in pairs if meta]


def _of_checkpoint(label: str, path: Path, meta: str = "") -> Subject:
    meta = meta or (path / "meta.json").read_text()
    step = json.loads(meta)["step"]
    identity = {"checkpoint": str(path), "meta": _digest(meta.encode())}
    try:
        config = run_config(path)
    except ConfigError:  # taken out of its run
        return Subject(label, str(path), str(path), identity, None, step)
    run, per_epoch = config.parent, steps_per_epoch(config.parent)
    identity["run"] = run_identity(run)
    epoch = step / per_epoch if per_epoch else None
    return Subject(label, str(run), str(path), identity, str(run), step, epoch)


def run_identity(run: Path) -> str:
    """Tells a run from an earlier one in the same folder; a resumed run keeps its config."""
    file = run / "config.yaml"
    return _digest(file.read_bytes() + str(file.stat().st_mtime_ns).encode())


def _meta(checkpoint: Path) -> str:
    """Text of meta.json; "" if the checkpoint has just been removed."""
    try:
        return (checkpoint / "meta.json").read_text()
    except OSError:
        return ""


def _short(given: str) -> str:
    """The last two parts of a folder, of a checkpoint those of its run; the name of a file."""
    path = Path(given)
    parts = path.parts[:-2] if path.parent.name == "checkpoints" else path.parts
    return "/".join(parts[-2:]) if path.is_dir() and len(parts) > 1 else path.name


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def digest_of_file(path: Path) -> str:
    found = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()
