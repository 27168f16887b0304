"""Exposed communication against sets of points, and on traces whose answer is known."""

import gzip
import json
import random

import pytest

from vissl_lite.profile.trace import exposed_communication, length, minus, union, write


def points(intervals):
    return {x for start, end in intervals for x in range(start, end)}


def test_interval_arithmetic_is_that_of_sets():
    draw = random.Random(0)
    for _ in range(200):
        a, b = (
            [(s, s + draw.randint(1, 9)) for s in draw.choices(range(50), k=draw.randint(0, 8))]
            for _ in range(2)
        )
        left = minus(union(a), union(b))
        assert points(left) == points(a) - points(b)
        assert length(left) == len(points(a) - points(b))


def mark(ts, phase):
    event = {"ph": "X", "cat": "user_annotation", "name": f"phase: {phase}", "dur": 1}
    return event | {"ts": ts, "pid": 7, "tid": 7}


def kernel(name, ts, dur, correlation, cat="kernel"):
    args = {"correlation": correlation}
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": 20, "args": args}


def launch(ts, correlation):
    return kernel("cudaLaunchKernel", ts, 1, correlation, cat="cuda_runtime")


def test_gpu():
    """NCCL kernels of two phases; the second runs when its phase is long over on the host."""
    events = [
        *(mark(0, "forward"), mark(100, "backward"), mark(200, "end")),
        *(launch(10, 1), launch(110, 2), launch(20, 3), launch(120, 4)),
        kernel("ncclDevKernel_AllGather", 1000, 300, 1),
        kernel("ncclDevKernel_ReduceScatter", 2000, 100, 2),
        kernel("sm90_xmma_gemm", 1100, 100, 3),
        kernel("Memcpy HtoD", 2050, 500, 4, cat="gpu_memcpy"),
    ]
    found = exposed_communication(events, on_gpu=True)
    assert found == pytest.approx({"forward": 200e-6, "backward": 50e-6})


def test_cpu():
    """Operators count where the training runs, not in gloo's own thread."""
    gloo = {"ph": "X", "cat": "user_annotation", "name": "gloo:all_reduce", "tid": 9}
    operator = {"ph": "X", "cat": "cpu_op", "name": "aten::mm"}
    events = [
        *(mark(0, "forward"), mark(100, "backward"), mark(200, "end")),
        gloo | {"ts": 110, "dur": 50},
        operator | {"ts": 100, "dur": 20, "tid": 7},
        operator | {"name": "aten::copy_", "ts": 140, "dur": 10, "tid": 9},
        operator | {"name": "c10d::allreduce_", "ts": 130, "dur": 20, "tid": 7},
    ]
    assert exposed_communication(events, on_gpu=False) == pytest.approx({"backward": 40e-6})


@pytest.mark.parametrize("name", ["t.json", "t.json.gz"])
def test_a_written_trace_has_a_track_of_phases(tmp_path, name):
    events = [mark(0, "data"), mark(30, "forward"), mark(100, "end"), mark(150, "data")]
    write({"traceEvents": events, "schemaVersion": 1}, tmp_path / name)
    raw = (tmp_path / name).read_bytes()
    trace = json.loads(gzip.decompress(raw) if name.endswith("gz") else raw)
    spans = [e for e in trace["traceEvents"] if e.get("cat") == "phase"]
    assert [(e["name"], e["ts"], e["dur"]) for e in spans] == [
        ("data", 0, 30),
        ("forward", 30, 70),
    ]
    assert trace["schemaVersion"] == 1
