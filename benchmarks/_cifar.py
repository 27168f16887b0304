"""Shared by the CIFAR-10 benchmarks: where the images are, our trainer, alternating timing."""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from vissl_lite.engine.trainer import Trainer
from vissl_lite.overrides import compose


def cifar_folder() -> Path:
    """The folder with train/<class>/*.jpg, from $CIFAR10."""
    folder = Path(os.environ.get("CIFAR10", "datasets/cifar10"))
    if not (folder / "train").is_dir():
        sys.exit(f"{folder}/train is not there; set CIFAR10 to the folder with train/ and test/")
    return folder


def our_trainer(*overrides: str, watched: bool = False) -> Trainer:
    """The trainer of the CIFAR-10 SimCLR recipe with these changes.

    Args:
        watched: with the hooks and loggers that a run has by default; else without any.
    """
    hooks, loggers = ("checkpoint,diagnose,nan_capture,report", "console,jsonl")
    words = [f"hooks=[{hooks}]", f"loggers=[{loggers}]"] if watched else ["hooks=[]", "loggers=[]"]
    recipe = "config=pretrain/simclr/resnet18_cifar10_200ep"
    return Trainer(compose([recipe, *words, *overrides]), Path(tempfile.mkdtemp()))


def our_steps(trainer: Trainer) -> Iterator[None]:
    """Takes a real training step each time it is advanced."""
    trainer.loader = trainer.parts.loader(0)
    for batch in trainer.loader:
        trainer.train_step(batch)
        if trainer.at_log_step:
            trainer.meters.flush()
        yield


def images_per_s(step: Callable[[], object], steps: int, batch: int) -> float:
    """Rate over a block of steps."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return steps * batch / (time.perf_counter() - start)


def alternate(
    ours: Callable[[], object], theirs: Callable[[], object], *, rounds: int, steps: int, batch: int
) -> tuple[list[float], list[float]]:
    """Images/s of both, block by block in turn, after one block of warm-up each."""
    images_per_s(ours, 2, batch), images_per_s(theirs, 2, batch)
    pairs = [
        (images_per_s(ours, steps, batch), images_per_s(theirs, steps, batch))
        for _ in range(rounds)
    ]
    return [a for a, _ in pairs], [b for _, b in pairs]


def report(name: str, ours: list[float], theirs: list[float], other: str) -> float:
    """Prints medians and the median of the ratios, round by round; returns that ratio."""
    ratio = statistics.median(a / b for a, b in zip(ours, theirs))
    print(
        f"{name}: ours {statistics.median(ours):.1f} images/s, {other}"
        f" {statistics.median(theirs):.1f} images/s, ratio {ratio:.3f}"
        f" (rounds: {', '.join(f'{a / b:.2f}' for a, b in zip(ours, theirs))})",
        flush=True,
    )
    return ratio
