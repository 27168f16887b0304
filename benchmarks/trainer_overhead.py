"""What the trainer costs: its images/s against a hand-written loop, same model, data, precision.

    CIFAR10=... python benchmarks/trainer_overhead.py [--batch 64] [key=value ...]

And what hooks and loggers cost: `fit` with those that a run has by default against the trainer
without any. Demand: ratios at least 0.97. CPU time leaves out what other programs take.
Last result: see RESULTS.md.
"""

import argparse
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from _cifar import alternate, cifar_folder, our_steps, our_trainer, report
from torch.utils.data import DataLoader

from vissl_lite.engine.trainer import Trainer
from vissl_lite.hooks.base import Hook


def hand_written(trainer):
    """The loop that one would write for this one case, with nothing around it."""
    model, optimizer, dataset = trainer.model, trainer.optimizer, trainer.parts.dataset
    sampler = trainer.parts.sampler(0, trainer.parts.total_steps)
    loader = DataLoader(dataset, batch_size=None, sampler=sampler, collate_fn=lambda batch: batch)
    mean, std, layout = model.mean, model.std, model.memory_format
    for batch in loader:
        crops = batch.views[0].flatten(0, 1).permute(0, 3, 1, 2)
        x = crops.to(torch.float32, memory_format=layout).sub_(mean).div_(std)
        with trainer.parts.numerics.autocast(trainer.device):
            z = model.heads[0](model.trunk(x, (model.layer,))[model.layer].mean((2, 3)))
        z = F.normalize(z.float(), dim=1)
        logits = (z @ z.T / trainer.loss.temperature).fill_diagonal_(-torch.inf)
        target = torch.arange(len(z)).roll(len(z) // 2)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits, target).backward()
        optimizer.step()
        yield


class InTurn(Hook):
    """In `fit`, after every block of its steps, takes a block of other steps, and times both.

    The first block is a warm-up. The start and the end of a run are in no block.
    """

    def __init__(self, other: Iterator[None]):
        self.other, self.start, self.pairs = other, None, []

    def after_step(self, trainer: Trainer) -> None:
        if trainer.step % trainer.config.train.log_every:
            return
        watched = None if self.start is None else clocks() - self.start
        start = clocks()
        for _ in range(trainer.config.train.log_every):
            next(self.other)
        if watched is not None:
            self.pairs.append((watched, clocks() - start))
        self.start = clocks()


def clocks() -> np.ndarray:
    """Seconds of the wall, and of this process's threads."""
    return np.array([time.perf_counter(), time.process_time()])


def compare_fit(batch: int, changes: Sequence[str]):
    """Prints the cost of hooks and loggers, a log step in every block."""
    words = [f"train.batch_size={batch}", "device=cpu", *changes]
    length = ["train.max_steps=100", "train.log_every=10", "hooks.report.pictures=false"]
    watched = our_trainer(*words, *length, watched=True)
    turns = watched.hooks["in_turn"] = InTurn(our_steps(our_trainer(*words)))
    watched.fit()
    for clock, name in enumerate(("fit with hooks and loggers", "the same in CPU time")):
        rates = [[10 * batch / pair[side][clock] for pair in turns.pairs] for side in (0, 1)]
        report(name, *rates, other="without any")


def compare_step(batch: int, changes: Sequence[str]):
    """Prints the cost of the trainer without hooks: blocks of both on the same model."""
    trainer = our_trainer(f"train.batch_size={batch}", "device=cpu", *changes)
    print("; ".join(trainer.parts.notes))
    ours, theirs = our_steps(trainer), hand_written(trainer)
    rates = alternate(lambda: next(ours), lambda: next(theirs), rounds=9, steps=4, batch=batch)
    report("trainer", *rates, other="hand-written loop")


def main():
    """Alternates blocks and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("changes", nargs="*", help="of the recipe, such as trunk.depth=50")
    args = parser.parse_args()
    cifar_folder()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    compare_step(args.batch, args.changes)
    compare_fit(args.batch, args.changes)


if __name__ == "__main__":
    main()
