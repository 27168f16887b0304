"""What a run has written, read back: its config, its records, its checkpoints."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from vissl_lite.config import Config, check
from vissl_lite.engine.checkpoint import Checkpointer
from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.plugins import recipe_files

NO_NUMBERS = ("kind", "name", "step", "epoch", "total_steps", "eta_s", "bad_step")


@dataclass
class Run:
    """A run that is over, was killed, or goes on.

    Attributes:
        tree: of config.yaml, as it was saved.
        records: of metrics.jsonl in order, but for a line that is being written.
        depth: folders of its path that make its name.
    """

    folder: Path
    tree: dict[str, Any]
    records: list[dict[str, Any]]
    depth: int = 1

    @classmethod
    def read(cls, folder: str | Path) -> Run:
        """
        Raises:
            ConfigError: the folder is no run, or its files are damaged.
        """
        folder = Path(folder)
        file = folder / "config.yaml"
        if not file.is_file():
            parent = folder.absolute().parent
            runs = [str(folder.parent / f.parent.name) for f in parent.glob("*/config.yaml")]
            close = did_you_mean(str(folder), runs) or "; give the folder that the run printed"
            raise ConfigError(f"{folder} is no run, it has no config.yaml{close}")
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(tree, dict):
            raise ConfigError(f"{file} holds no config; write it anew with a new run")
        kept = {key: value for key, value in tree.items() if key not in ("defaults", "hydra")}
        return cls(folder, kept, _records(folder / "metrics.jsonl"))

    @cached_property
    def config(self) -> Config:
        """With the defaults of what the version that ran did not have yet.

        Raises:
            ConfigError: this version of the library, or its plugins, do not know it any more.
        """
        return check(self.tree)

    @property
    def name(self) -> str:
        """The folder's, with those above it where several runs are told apart by them."""
        return "/".join(self.folder.absolute().parts[-self.depth :])

    @property
    def recipe(self) -> str:
        return str(self.start.get("recipe") or self.tree.get("recipe") or "")

    def kind(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind."""
        return [record for record in self.records if record.get("kind") == kind]

    @property
    def start(self) -> dict[str, Any]:
        """The record of the last start; {} where nothing was recorded."""
        return (self.kind("start") or [{}])[-1]

    @property
    def state(self) -> str:
        """How far it is, in words: `done in 1:20`, `at step 120 of 440, not ended`."""
        last = next((i for i, r in enumerate(self.records) if r is self.start), 0)
        ends = [r for r in self.records[last:] if r.get("kind") == "end"]
        if ends:
            return str(ends[-1]["reason"])
        if not self.records:
            return "nothing recorded"
        train = self.kind("train")
        step = train[-1].get("step", 0) if train else 0
        total = self.start.get("total_steps", 0)
        total = min(total, (self.tree.get("train") or {}).get("max_steps") or total)
        return "done" if step >= total > 0 else f"at step {step:,} of {total:,}, not ended"

    def epoch_of(self, record: dict[str, Any]) -> float:
        """Epochs done at a record; steps where the length of an epoch is unknown."""
        return record.get("epoch", record.get("step", 0) / self.start.get("steps_per_epoch", 1))

    def column(self, key: str, kind: str = "train", name: str | None = None) -> list[tuple]:
        """(epoch, value) of every record that has `key`; name: of the evaluation."""
        return [
            (self.epoch_of(r), number(r[key]))
            for r in self.kind(kind)
            if key in r and (name is None or r.get("name") == name)
        ]

    def measured(self) -> list[str]:
        """What the training records measure, in order of appearance."""
        found = dict.fromkeys(key for r in self.kind("train") for key in r)
        return [key for key in found if key not in NO_NUMBERS]

    def evaluations(self) -> dict[str, dict[str, list[tuple]]]:
        """Evaluation -> metric -> (epoch, value) at every time it ran."""
        found: dict[str, dict[str, list[tuple]]] = {}
        for record in self.kind("eval"):
            metrics = found.setdefault(str(record.get("name")), {})
            for key in record:
                if key not in NO_NUMBERS and not math.isnan(value := number(record[key])):
                    metrics.setdefault(key, []).append((self.epoch_of(record), value))
        return found

    @property
    def warnings(self) -> list[str]:
        """What the run warned of, each once."""
        notes = (r for r in self.kind("note") if r.get("level") == "warning")
        return list(dict.fromkeys(str(r.get("text")) for r in notes))

    @property
    def checkpoint(self) -> Path | None:
        """The newest complete checkpoint."""
        return Checkpointer(self.folder / "checkpoints").latest()

    @property
    def words(self) -> list[str]:
        """Of the command line, as Hydra kept them; [] where it did not."""
        file = self.folder / ".hydra" / "overrides.yaml"
        found = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else []
        return [str(word).removeprefix("++") for word in found or []]

    @property
    def command(self) -> str:
        """As it can be given again; "" where it is not known."""
        return shlex.join(["vissl-lite", *self.words]) if self.words else ""

    @property
    def versions(self) -> dict[str, str]:
        """Of the library, PyTorch and Python, as far as they are known."""
        newest = self.checkpoint
        meta = json.loads((newest / "meta.json").read_text()) if newest else {}
        if not meta:
            head = (self.folder / "config.yaml").read_text(encoding="utf-8").split("\n", 1)[0]
            meta = {"vissl_lite": head.partition("vissl_lite ")[2].partition(". ")[0]}
        return {k: meta[k] for k in ("vissl_lite", "torch", "python") if meta.get(k)}


def told_apart(runs: Sequence[Run]) -> Sequence[Run]:
    """The same runs with names that differ, as far as their folders do."""
    deepest = max(len(run.folder.absolute().parts) for run in runs)
    while len({run.name for run in runs}) < len(runs) and runs[0].depth < deepest:
        for run in runs:
            run.depth += 1
    return runs


def card(recipe: str) -> str:
    """The comment that a recipe begins with; "" where there is no such recipe."""
    file = recipe_files().get(recipe)
    if file is None:
        return ""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line[2:])
    return "\n".join(lines).strip()


def number(value: Any) -> float:
    """As the loggers write it: numbers, and "nan", "inf", "-inf"; all else is nan."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _records(file: Path) -> list[dict[str, Any]]:
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    found = []
    for i, line in enumerate(lines):
        try:
            found.append(json.loads(line))
        except ValueError:
            if i + 1 < len(lines):
                raise ConfigError(f"line {i + 1} of {file} is damaged; remove it") from None
    return [record for record in found if isinstance(record, dict)]
