"""The whole measurement, on one process and on two."""

import io
import json

import pytest
from distributed import run_ranks
from rich.console import Console
from training import small

from vissl_lite.plugins import load_entries
from vissl_lite.profile.clock import PHASES
from vissl_lite.profile.report import print_report
from vissl_lite.profile.settings import Settings
from vissl_lite.profile.step import bench_step, summary

load_entries()


def printed(result):
    text = io.StringIO()
    print_report(result, Console(file=text, width=100))
    return text.getvalue()


def adds_up(times):
    parts = sum(times[phase]["mean"] for phase in (*PHASES, "communication"))
    assert parts == pytest.approx(times["step"]["mean"], rel=1e-9)


def test_one_process(tmp_path):
    trace = tmp_path / "trace.json"
    result = bench_step(small(), Settings(steps=4, warmup=1, trace=trace))
    adds_up(result["times"])
    assert result["times"]["communication"]["mean"] == 0
    mean = result["times"]["step"]["mean"]
    assert result["images_per_s"] == pytest.approx(16 / mean)
    assert result["mfu"] is None
    names = [row["name"] for row in result["operators"]]
    assert len(names) == 10
    assert "aten::convolution_backward" in names
    assert sum(row["share"] for row in result["operators"]) <= 1
    events = json.loads(trace.read_text())["traceEvents"]
    assert {e["name"] for e in events if e.get("cat") == "phase"} == set(PHASES)
    lines = printed(result).splitlines()
    assert max(map(len, lines)) <= 100
    assert json.loads(json.dumps(result)) == result


def test_flops_do_not_count_what_is_computed_again():
    settings = Settings(steps=2, warmup=1, images="resident")
    work = []
    for mode in ("none", "block"):
        result = bench_step(small(f"++memory.activation_checkpointing={mode}"), settings)
        assert result["checkpointing"] == mode
        work.append(result["flops"] * result["times"]["step"]["mean"])
    assert work[0] == pytest.approx(work[1])


def on_a_rank(rank, world):
    load_entries()
    config = small("++parallel.strategy=zero3", "++train.batch_size=8")
    return bench_step(config, Settings(steps=3, warmup=1))


def test_two_processes():
    first, second = run_ranks(on_a_rank, 2, timeout=120)
    assert first["times"] == second["times"]
    adds_up(first["times"])
    assert first["times"]["communication"]["mean"] > 0
    assert first["memory"] == second["memory"]
    assert (first["world_size"], first["strategy"], first["local_batch"]) == (2, "zero3", 4)
    whole = bench_step(small(), Settings(steps=1, warmup=1, images="resident"))
    assert first["memory"]["parameters"] < 0.6 * whole["memory"]["parameters"]
    assert "communication" in printed(first)


def test_the_rank_that_the_others_wait_for():
    """Rank 1 computes for 3 s, rank 0 for 1 s and waits for 2 s in its backward pass."""
    steps = dict.fromkeys(PHASES, 0.0)
    ranks = [
        {"steps": [steps | {"backward": 3.0}] * 2, "communication": {"backward": 2.0}},
        {"steps": [steps | {"backward": 3.0}] * 2, "communication": {"backward": 0.5}},
    ]
    times = summary(ranks)
    assert times["rank"] == 1
    assert times["backward"]["mean"] == 2.5
    assert times["communication"]["mean"] == 0.5
    assert times["step"]["mean"] == 3.0
