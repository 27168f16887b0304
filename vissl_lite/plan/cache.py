"""Traces on disk: the second question about a model is answered at once."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import vissl_lite
from vissl_lite.io import cache_folder
from vissl_lite.plan.trace import Event, Trace


def cached(question: dict[str, Any], answer: Callable[[], Trace], fresh: bool = False) -> Trace:
    """The trace that `answer` makes, or the one that was kept for an equal question.

    Kept in `plan/` of the cache folder. Another version of torch or of a file of this package asks
    another question; parts of third parties do not, for them there is `fresh`.

    Args:
        question: plain values.
    """
    text = json.dumps([question, torch.__version__, _package()], sort_keys=True, default=str)
    file = cache_folder() / "plan" / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
    if file.is_file() and not fresh:
        return _read(file)
    trace = answer()
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(asdict(trace)), encoding="utf-8")
    os.replace(part, file)
    return trace


def _read(file: Path) -> Trace:
    kept = json.loads(file.read_text(encoding="utf-8"))
    events = [Event(**event) for event in kept.pop("events")]
    return Trace(events=events, **kept)


@functools.cache
def _package() -> list[tuple[str, int, int]]:
    """Name, size and time of every file of this package."""
    root = Path(vissl_lite.__file__).parent
    stats = {file: file.stat() for file in sorted(root.rglob("*.py"))}
    return [(str(f.relative_to(root)), s.st_size, s.st_mtime_ns) for f, s in stats.items()]
