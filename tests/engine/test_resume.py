"""Killed at any moment, a run goes on bit for bit: real processes, kill -9, random moments."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command import command
from safetensors.torch import load_file
from training import SMALL, records

from vissl_lite.engine.checkpoint import Checkpointer

ROOT = Path(__file__).resolve().parents[2]
STEPS, LOG_EVERY = 40, 3  # log intervals and checkpoints do not coincide
WORDS = [
    *(word.lstrip("+") for word in SMALL if "recipe" not in word),
    "config=quickstart",
    "loss=swav",
    "heads=[{name: mlp, hidden: [32], out_dim: 16}, {name: prototypes, num_prototypes: 12}]",
    "loss.queue_length=64",
    "hooks=[checkpoint]",
    "evaluations=[]",
    "hooks.checkpoint.every_steps=4",
    f"train.log_every={LOG_EVERY}",
    f"train.max_steps={STEPS}",
    "train.epochs=1",
]


def start(*words, cwd):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "run.py"), *words],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(*words, cwd):
    """Runs to the end, in this process."""
    done = command(*words, cwd=cwd)
    assert done.returncode == 0, done.stderr


def losses(run_dir):
    return [(r["step"], r["loss"]) for r in records(run_dir)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    finish(*WORDS, f"hydra.run.dir={run_dir}", cwd=run_dir.parent)
    return run_dir


def wait_for(process, run_dir, lines):
    """Until the run has logged so many training steps."""
    while process.poll() is None:
        if (run_dir / "metrics.jsonl").is_file() and len(records(run_dir)) >= lines:
            return
        time.sleep(0.005)


@pytest.mark.parametrize("attempt", range(2))
def test_kill_9_at_a_random_moment(uninterrupted, tmp_path, attempt):
    """The moment is a number of log lines, after the first checkpoint and well before the end."""
    run_dir, rng = tmp_path / "run", random.Random(attempt)
    process = start(*WORDS, f"hydra.run.dir={run_dir}", cwd=tmp_path)
    wait_for(process, run_dir, lines=rng.randint(2, STEPS // LOG_EVERY - 6))
    time.sleep(rng.uniform(0, 0.05))
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, output
    assert Checkpointer(run_dir / "checkpoints").complete()
    assert records(run_dir)[-1]["step"] < STEPS
    finish(f"resume={run_dir}", cwd=tmp_path)
    assert losses(run_dir) == losses(uninterrupted)
    whole, resumed = (load_file(d / "weights.safetensors") for d in (uninterrupted, run_dir))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_two_interruptions_in_one_epoch(uninterrupted, tmp_path):
    """A peer's second resume within an epoch drifted."""
    run_dir = tmp_path / "run"
    finish(*WORDS, f"hydra.run.dir={run_dir}", "train.max_steps=10", cwd=tmp_path)
    for stop in (22, STEPS):
        finish(f"resume={run_dir}", f"train.max_steps={stop}", cwd=tmp_path)
    steps = dict(losses(uninterrupted))
    common = {step: loss for step, loss in losses(run_dir) if step in steps and step % 3 == 0}
    # the log interval that an early last step has cut in two is not comparable
    comparable = {s: v for s, v in common.items() if s not in (12, 24)}
    assert comparable == {s: steps[s] for s in comparable}
    assert len(comparable) > 8
    whole, resumed = (load_file(d / "weights.safetensors") for d in (uninterrupted, run_dir))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_sigterm_and_resume(uninterrupted, tmp_path):
    run_dir = tmp_path / "run"
    process = start(*WORDS, f"hydra.run.dir={run_dir}", cwd=tmp_path)
    wait_for(process, run_dir, lines=1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, output
    finish(f"resume={run_dir}", cwd=tmp_path)
    assert losses(run_dir) == losses(uninterrupted)
