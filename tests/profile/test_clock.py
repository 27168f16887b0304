"""Phases add up to the step, and a delay shows up in the phase it was put into."""

import time
from itertools import repeat
from statistics import median

import pytest
import torch
from training import small

from vissl_lite.engine.trainer import Trainer
from vissl_lite.profile.clock import PHASES, Clock, take_steps

SLEEP, STEPS = 0.1, 3


def trainer(tmp_path, *words):
    return Trainer(small("++train.epochs=100", *words), tmp_path)


def timed(trainer, batches=None):
    """Seconds of each phase, of each of a few steps after two that warm up."""
    batches = batches or iter(trainer.parts.loader(0))
    take_steps(trainer, batches, Clock(trainer.device), 2)
    clock = Clock(trainer.device)
    start = time.perf_counter()
    take_steps(trainer, batches, clock, STEPS)
    return clock.steps(), time.perf_counter() - start


def test_the_phases_add_up_to_the_step(tmp_path):
    steps, seconds = timed(trainer(tmp_path))
    assert len(steps) == STEPS
    assert all(step.keys() == PHASES.keys() for step in steps)
    assert sum(sum(step.values()) for step in steps) == pytest.approx(seconds, rel=0.05)
    for phase in ("data", "forward", "backward", "update"):
        assert min(step[phase] for step in steps) > 0, phase


def slow(function):
    def wrapped(*args, **kwargs):
        time.sleep(SLEEP)
        return function(*args, **kwargs)

    return wrapped


def slow_data(t):
    t.parts.dataset.order.indices = slow(t.parts.dataset.order.indices)


def slow_model(t):
    t.model.trunk.forward = slow(t.model.trunk.forward)


def slow_loss(t):
    t.loss.forward = slow(t.loss.forward)


def slow_backward(t):
    weight = next(t.model.heads.parameters())
    weight.register_hook(slow(lambda grad: grad))


def slow_clip(t):
    t.loss.before_step = lambda model, step: time.sleep(SLEEP)


def slow_teacher(t):
    t.model.update_teacher = slow(t.model.update_teacher)


def slow_schedules(t):
    t.parts.schedules.apply = slow(t.parts.schedules.apply)


@pytest.mark.parametrize(
    ("delay", "phase"),
    [
        (slow_data, "data"),
        (slow_model, "forward"),
        (slow_loss, "forward"),
        (slow_backward, "backward"),
        (slow_clip, "clip"),
        (slow_teacher, "after"),
        (slow_schedules, "other"),
    ],
)
def test_a_delay_shows_up_in_its_phase(tmp_path, delay, phase):
    t = trainer(tmp_path)
    before, _ = timed(t)
    delay(t)
    after, _ = timed(t)
    added = {p: median(s[p] for s in after) - median(s[p] for s in before) for p in PHASES}
    assert added[phase] == pytest.approx(SLEEP, rel=0.4)
    assert max(value for p, value in added.items() if p != phase) < 0.5 * SLEEP


def test_every_micro_batch_counts(tmp_path):
    t = trainer(tmp_path, "++train.accumulate=4")
    t.loss.forward = slow(t.loss.forward)
    steps, seconds = timed(t)
    assert min(step["forward"] for step in steps) > 4 * SLEEP
    assert sum(sum(step.values()) for step in steps) == pytest.approx(seconds, rel=0.05)


def test_nothing_of_it_stays_in_the_training(tmp_path):
    t = trainer(tmp_path)
    batch = next(iter(t.parts.loader(0)))
    clock = Clock(t.device)
    take_steps(t, repeat(batch), clock, 1)
    marks = len(clock.marks)
    t.train_step(batch)
    assert len(clock.marks) == marks
    assert t.hooks == {}
    assert t.step == 2


def test_measured_steps_train_as_others_do(tmp_path):
    watched, plain = (trainer(tmp_path / name) for name in ("watched", "plain"))
    take_steps(watched, iter(watched.parts.loader(0)), Clock(watched.device), 2)
    for batch, _ in zip(plain.parts.loader(0), range(2)):
        plain.train_step(batch)
    for a, b in zip(watched.model.parameters(), plain.model.parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
