"""What a run in progress says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml


def has_ended(run: Path) -> bool:
    """Whether the last start of a run has come to its end, early or not; False once it is killed.

    A run that keeps no records (`loggers` without jsonl) cannot tell and counts as ended.
    """
    last = _last(run, "start", "end")
    if last is not None:
        return last["kind"] == "end"
    config = run / "config.yaml"
    return not config.is_file() or "jsonl" not in yaml.safe_load(config.read_text())["loggers"]


def steps_per_epoch(run: Path) -> int | None:
    """None where the run has kept no records."""
    start = _last(run, "start")
    return start.get("steps_per_epoch") if start else None


def _last(run: Path, *kinds: str) -> dict[str, Any] | None:
    """The last record of one of these kinds; the line that is being written does not count."""
    file, found = run / "metrics.jsonl", None
    if not file.is_file():
        return None
    marks = [f'"kind": "{kind}"'.encode() for kind in kinds]
    with file.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n") and any(mark in line for mark in marks):
                found = line
    return json.loads(found) if found else None
