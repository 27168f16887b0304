"""Where the time of a step goes, measured from outside of the trainer."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import record_function

from vissl_lite.data.batch import Batch
from vissl_lite.engine.numerics import synchronise
from vissl_lite.hooks.base import Hook
from vissl_lite.model import Outputs

if TYPE_CHECKING:
    from vissl_lite.engine.trainer import Trainer

PHASES = {
    "data": "waiting for the batch, copying it",
    "forward": "model and loss",
    "backward": "",
    "clip": "unscale and clip gradients",
    "update": "the optimizer itself",
    "after": "heads, EMA teacher, meters",
    "other": "seeds, schedules, freeing of gradients",
}
MARK = "phase: "  # prefix of what a trace shows where a phase begins


class Clock:
    """Notes when each phase of a step begins; a phase lasts until the next one begins.

    Hence the phases of a step add up to it. On a GPU the notes are events in the stream: the host
    never waits, and a phase lasts as long as the device is at it or idle because of it.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.marks: list[tuple[str, Any]] = []

    def mark(self, phase: str) -> None:
        """`phase` begins now."""
        with record_function(MARK + phase):
            self.marks.append((phase, self._now()))

    def _now(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def steps(self) -> list[dict[str, float]]:
        """Seconds of every phase, for every step, each of which begins with "data"."""
        synchronise(self.device)
        steps: list[dict[str, float]] = []
        for (phase, start), (_, end) in pairwise(self.marks):
            if phase == "data":
                steps.append(defaultdict(float, dict.fromkeys(PHASES, 0.0)))
            if phase != "end":
                seconds = end - start if isinstance(start, float) else start.elapsed_time(end) / 1e3
                steps[-1][phase] += seconds
        return [dict(step) for step in steps]


def take_steps(trainer: Trainer, batches: Iterator[Batch], clock: Clock, count: int) -> None:
    """Real training steps under the clock; waits for the device at the end, not between them."""
    with _attached(trainer, clock):
        for _ in range(count):
            clock.mark("data")
            batch = next(batches)
            clock.mark("other")
            trainer.train_step(batch)
        clock.mark("end")
    synchronise(trainer.device)


@contextlib.contextmanager
def _attached(trainer: Trainer, clock: Clock) -> Iterator[None]:
    """Marks the phases of `Trainer.train_step` through hooks of its parts.

    other   -> forward    the model is called
    forward -> backward   the loss returns; with GradCache also the model, when called again
    backward -> clip      the trainer's hook `after_backward`
    clip -> update -> after   the optimizer's own step begins, ends
    """
    watch = _Watch(clock)
    handles = [
        trainer.forward.register_forward_pre_hook(watch.before_model, prepend=True),
        trainer.forward.register_forward_hook(watch.after_model),
        trainer.loss.register_forward_hook(watch.after_loss),
        trainer.optimizer.register_step_pre_hook(lambda *_: clock.mark("update")),
        trainer.optimizer.register_step_post_hook(lambda *_: clock.mark("after")),
    ]
    trainer.hooks = {"clock": watch, **trainer.hooks}
    try:
        yield
    finally:
        trainer.hooks = {k: hook for k, hook in trainer.hooks.items() if hook is not watch}
        for handle in handles:
            handle.remove()


class _Watch(Hook):
    """Follows a micro-batch through model, loss and backward pass."""

    def __init__(self, clock: Clock):
        self.clock, self.scored = clock, False

    def before_model(self, *_: Any) -> None:
        self.clock.mark("forward")

    def after_model(self, *_: Any) -> None:
        if self.scored:
            self.clock.mark("backward")

    def after_loss(self, *_: Any) -> None:
        self.scored = True
        self.clock.mark("backward")

    def after_backward(self, trainer: Trainer, outputs: Outputs, batch: Batch) -> None:
        self.scored = False
        self.clock.mark("clip")
