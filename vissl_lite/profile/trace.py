"""What torch.profiler recorded: exposed communication by phase, and a trace for Perfetto.

Intervals are (start, end) in microseconds.
"""

from __future__ import annotations

import bisect
import gzip
import json
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from vissl_lite.profile.clock import MARK

Interval = tuple[float, float]
Event = dict[str, Any]
ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
LAUNCHES = ("cuda_runtime", "cuda_driver")


def read(path: Path) -> dict[str, Any]:
    """A trace as torch.profiler wrote it."""
    return json.loads(path.read_text())


def write(trace: dict[str, Any], path: Path) -> None:
    """The trace with a track of its own for the phases; compressed if the name ends in .gz."""
    marks = _marks(trace["traceEvents"])
    pid = marks[0][2] if marks else 0
    track = {"name": "thread_name", "ph": "M", "pid": pid, "tid": 1, "args": {"name": "phases"}}
    spans = [
        {"ph": "X", "cat": "phase", "name": phase, "ts": ts, "dur": end - ts, "pid": pid, "tid": 1}
        for (ts, phase, _), (end, _, _) in pairwise(marks)
        if phase != "end"
    ]
    text = json.dumps(trace | {"traceEvents": [*trace["traceEvents"], track, *spans]})
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def exposed_communication(events: list[Event], on_gpu: bool) -> dict[str, float]:
    """Seconds by phase during which processes communicate and nothing is computed.

    GPU: NCCL kernels without any other kernel or copy beside them; they belong to the phase that
    launched them. CPU: gloo's operations without an operator of PyTorch beside them.
    """
    communication, compute = (_on_gpu if on_gpu else _on_cpu)(events)
    starts = [(ts, phase) for ts, phase, _ in _marks(events)]
    by_phase: dict[str, list[Interval]] = defaultdict(list)
    for issued, interval in communication:
        before = bisect.bisect(starts, (issued, "~")) - 1
        by_phase[starts[before][1] if before >= 0 else "end"].append(interval)
    busy = union(compute)
    return {
        phase: length(minus(union(intervals), busy)) / 1e6 for phase, intervals in by_phase.items()
    }


def _on_gpu(events: list[Event]) -> tuple[list[tuple[float, Interval]], list[Interval]]:
    launched = {
        e["args"]["correlation"]: e["ts"]
        for e in events
        if e.get("cat") in LAUNCHES and "correlation" in e.get("args", {})
    }
    kernels = [e for e in events if e.get("cat") in ON_DEVICE]
    nccl = [e for e in kernels if e["name"].startswith("nccl")]
    issued = [launched.get(e["args"].get("correlation"), e["ts"]) for e in nccl]
    compute = [_interval(e) for e in kernels if not e["name"].startswith("nccl")]
    return list(zip(issued, map(_interval, nccl))), compute


def _on_cpu(events: list[Event]) -> tuple[list[tuple[float, Interval]], list[Interval]]:
    gloo = [e for e in events if e.get("ph") == "X" and e["name"].startswith("gloo:")]
    threads = {e["tid"] for e in gloo}  # they copy by operators too
    operators = [
        _interval(e)
        for e in events
        if e.get("cat") == "cpu_op" and e["name"].startswith("aten::") and e["tid"] not in threads
    ]
    return [(e["ts"], _interval(e)) for e in gloo], operators


def _marks(events: list[Event]) -> list[tuple[float, str, Any]]:
    """(time, phase, process) of every begin of a phase."""
    found = [
        (e["ts"], e["name"].removeprefix(MARK), e["pid"])
        for e in events
        if e.get("cat") == "user_annotation" and e["name"].startswith(MARK)
    ]
    return sorted(found, key=lambda mark: mark[0])


def _interval(event: Event) -> Interval:
    return event["ts"], event["ts"] + event["dur"]


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same points as disjoint intervals in order."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged


def minus(a: list[Interval], b: list[Interval]) -> list[Interval]:
    """Points of `a` that are not in `b`; both as `union` gives them."""
    left, j = [], 0
    for start, end in a:
        while j < len(b) and b[j][1] <= start:
            j += 1
        k = j
        while k < len(b) and b[k][0] < end:
            if b[k][0] > start:
                left.append((start, b[k][0]))
            start = max(start, b[k][1])
            k += 1
        if start < end:
            left.append((start, end))
    return left


def length(intervals: Iterable[Interval]) -> float:
    return sum(end - start for start, end in intervals)
