"""On a GPU phases are measured by events, memory by the allocator."""

import time

import pytest
import torch
from training import small

from vissl_lite.engine.trainer import Trainer
from vissl_lite.profile.clock import Clock, take_steps
from vissl_lite.profile.settings import Settings
from vissl_lite.profile.step import bench_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_the_phases_add_up_and_a_late_host_counts(tmp_path):
    trainer = Trainer(small("++device=cuda", "++train.epochs=100"), tmp_path)
    trainer.model.trunk.forward = slow(trainer.model.trunk.forward)
    batches = iter(trainer.parts.loader(0))
    take_steps(trainer, batches, Clock(trainer.device), 3)
    clock, start = Clock(trainer.device), time.perf_counter()
    take_steps(trainer, batches, clock, 5)
    seconds = time.perf_counter() - start
    steps = clock.steps()
    assert sum(sum(step.values()) for step in steps) == pytest.approx(seconds, rel=0.05)
    assert all(step["forward"] > 0.1 for step in steps)


def slow(function):
    def wrapped(*args, **kwargs):
        time.sleep(0.1)
        return function(*args, **kwargs)

    return wrapped


def test_the_whole_measurement(tmp_path):
    trace = tmp_path / "trace.json.gz"
    settings = Settings(steps=5, warmup=2, images="resident", trace=trace)
    result = bench_step(small("++device=cuda", "++precision=bf16"), settings)
    memory = result["memory"]
    parts = ("program", "parameters", "gradients", "optimizer state", "buffers", "activations")
    assert sum(memory[part] for part in parts) == memory["peak"] <= memory["reserved"]
    assert memory["activations"] > 0
    assert sum(row["seconds"] for row in result["operators"]) > 0
    assert trace.stat().st_size > 1000
