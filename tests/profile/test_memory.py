"""Bytes of every part are those of its tensors."""

import mmap

import pytest
import torch
from training import small

from vissl_lite.engine.trainer import Trainer
from vissl_lite.profile import memory

CPU = torch.device("cpu")


def trained_one_step(tmp_path, *words):
    trainer = Trainer(small(*words), tmp_path)
    trainer.train_step(next(iter(trainer.parts.loader(0))))
    return trainer


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_parts_are_exact(tmp_path):
    trainer = trained_one_step(tmp_path, "optimizer=adamw")
    found = memory.parts(trainer, before=0)
    parameters, tensors = count(trainer.model), len(list(trainer.model.parameters()))
    assert found["parameters"] == found["gradients"] == 4 * parameters
    assert found["optimizer state"] == 2 * 4 * parameters + 4 * tensors  # moments, step counters
    assert found["buffers"] == sum(b.nbytes for b in trainer.model.buffers())
    parts = [v for k, v in found.items() if k != "peak"]
    assert sum(parts) == found["peak"]


def test_a_teacher_is_among_the_parameters_without_gradients(tmp_path):
    trainer = trained_one_step(tmp_path)
    alone = memory.parts(trainer, before=0)
    trainer.model.add_teacher()
    found = memory.parts(trainer, before=0)
    assert found["parameters"] == 2 * alone["parameters"]
    assert found["gradients"] == alone["gradients"]


def test_the_peak_counts_anew_after_a_reset():
    fill(300_000_000)
    first = memory.peak(CPU)
    memory.reset_peak(CPU)
    low = memory.peak(CPU)
    fill(100_000_000)
    assert first - low > 250e6
    assert memory.peak(CPU) - low == pytest.approx(100e6, rel=0.1)


def fill(size):
    """Takes memory from the system, and gives it back."""
    with mmap.mmap(-1, size) as pages:
        for page in range(0, size, mmap.PAGESIZE):
            pages[page] = 1
