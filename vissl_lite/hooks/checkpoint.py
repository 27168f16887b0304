"""When to save, what to keep, which is best; and the trunk's weights at the end."""

from __future__ import annotations

import json
import math
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch

import vissl_lite
from vissl_lite import HOOKS, TRUNKS, ConfigError
from vissl_lite.engine import weights_file
from vissl_lite.errors import NonFiniteLoss, SaveFailed, did_you_mean
from vissl_lite.hooks._outlook import outlook
from vissl_lite.hooks.base import Hook
from vissl_lite.parallel.collectives import all_reduce_sum, broadcast_object, rank
from vissl_lite.parallel.shards import local
from vissl_lite.schema import above, at_least

if TYPE_CHECKING:
    from vissl_lite.engine.trainer import Trainer


@HOOKS.register("checkpoint")
class Checkpoint(Hook):
    """Saves checkpoints while training and the trunk's weights at the end.

    `RUN/checkpoints` keeps the newest, the best and one of every `keep_every_epochs`; `resume=RUN`
    goes on from the newest. The end, early or not, is always saved and leaves
    `RUN/weights.safetensors`: the trunk's tensors under the trunk's own names, with recipe, step
    and the trunk's config (JSON) as metadata. Nothing is saved any more once a loss or a weight is
    not finite, and the next log line is the last.

    Args:
        every_epochs: may be a fraction; 0: not by epochs.
        every_minutes: looked at when the loss is logged; null: not by time.
        every_steps: null: not by steps.
        keep_last: so many of the newest stay.
        keep_every_epochs: the end of each such period, maybe a fraction, is saved and stays: a
            healthy one is there when a collapse is seen late. null: none.
        best: metric of an evaluation, such as "knn.top1". The step that improves it is saved at
            once and stays until a better one comes.
        best_mode: whether the largest or the smallest value is best.
        background: training goes on while a thread writes a copy in host memory; null: on a GPU.
            A checkpoint that cannot be written is reported and left out, the last one is an error.

    Raises:
        ConfigError: a metric that no evaluation has.
        NonFiniteLoss: on all ranks, after the log line that tells of it.
    """

    last = True  # what the others did at this step, evaluations above all, is in the checkpoint

    def __init__(
        self,
        every_epochs: Annotated[float, at_least(0)] = 1.0,
        every_minutes: Annotated[float | None, above(0)] = 10.0,
        every_steps: Annotated[int | None, at_least(1)] = None,
        keep_last: Annotated[int, at_least(1)] = 2,
        keep_every_epochs: Annotated[float | None, above(0)] = None,
        best: str | None = None,
        best_mode: Literal["max", "min"] = "max",
        background: bool | None = None,
    ):
        self.every_epochs, self.every_steps = every_epochs, every_steps
        self.every_minutes, self.background = every_minutes, background
        self.keep_last, self.keep_every_epochs = keep_last, keep_every_epochs
        self.best, self.best_mode = best, best_mode
        self.best_value, self.best_step = math.nan, -1
        self.given_up = math.nan, -1  # value and step of a best that could not be saved
        self._before = self.best_value, self.best_step  # before the last save
        self.late, self.spoilt = False, False
        self.told: set[str] = set()

    def on_start(self, trainer: Trainer) -> None:
        self._check_best(trainer)
        self.saved_at = time.monotonic()
        on_gpu = trainer.device.type == "cuda"
        trainer.checkpointer.background = on_gpu if self.background is None else self.background
        latest = trainer.checkpointer.latest()
        killed_before_the_mark = self.best_step == trainer.step and rank() == 0
        if latest and killed_before_the_mark:
            trainer.checkpointer.mark_best(latest)
        if math.isnan(self.best_value):  # measured before the first step
            self.best_value = trainer.results.get(self.best or "", math.nan)

    def _check_best(self, trainer: Trainer) -> None:
        if self.best is None:
            return
        evaluation, _, metric = self.best.partition(".")
        if evaluation not in trainer.config.evaluations or not metric:
            offered = ", ".join(f"{name}.METRIC" for name in trainer.config.evaluations)
            raise ConfigError(
                f"hooks.checkpoint.best: {self.best!r} is no metric of an evaluation of this run;"
                f" it has {offered or 'no evaluations'}"
            )

    def on_log(self, trainer: Trainer, record: dict[str, Any]) -> None:
        if self.spoilt or "bad_step" in record:  # `nan_capture`, where it is, has spoken before
            trainer.journal.log(record)
            raise self._not_finite(trainer, record.get("bad_step"))
        if self.every_minutes is not None:  # rank 0 decides: clocks differ
            minutes = (time.monotonic() - self.saved_at) / 60
            self.late = broadcast_object(minutes >= self.every_minutes)

    def after_step(self, trainer: Trainer) -> None:
        by_step = self.every_steps is not None and trainer.step % self.every_steps == 0
        due = by_step or self.late or trainer.at_end_of(self.every_epochs)
        due = due or self._stays(trainer, trainer.step)
        if due or self._improved(trainer):
            try:
                self._save(trainer)
            except SaveFailed as error:
                trainer.journal.note(f"{error}; training goes on without it", "warning")

    def on_end(self, trainer: Trainer) -> None:
        if not self._save(trainer):
            raise self._not_finite(trainer)
        trainer.checkpointer.wait()
        file = trainer.run_dir / "weights.safetensors"
        weights_file.write(trainer.model.trunk.state_dict(), file, _card(trainer))

    def _stays(self, trainer: Trainer, step: int) -> bool:
        return trainer.at_end_of(self.keep_every_epochs or 0.0, step)

    def _not_finite(self, trainer: Trainer, bad_step: int | None = None) -> NonFiniteLoss:
        self._settle(trainer)
        if bad_step is None:
            return NonFiniteLoss(
                f"a weight or a running statistic is not finite; {outlook(trainer)}"
            )
        return NonFiniteLoss(
            f"the loss is not finite since step {bad_step}; {outlook(trainer)}; the hook"
            " nan_capture saves the batch"
        )

    def _improved(self, trainer: Trainer) -> bool:
        value = trainer.results.get(self.best or "", math.nan)
        lost, lost_at = self.given_up
        if value == lost and trainer.step != lost_at:  # measured on weights that are gone
            return False
        if math.isnan(self.best_value):
            return math.isfinite(value)
        return value > self.best_value if self.best_mode == "max" else value < self.best_value

    def _save(self, trainer: Trainer) -> bool:
        """Saves this step unless it is spoilt; says whether it did."""
        if not all_finite(trainer):
            self.spoilt = True
            return False
        self._settle(trainer)
        self._before = self.best_value, self.best_step
        if improved := self._improved(trainer):
            self.best_value, self.best_step = trainer.results[self.best or ""], trainer.step
        self.saved_at, self.late = time.monotonic(), False  # a failure waits for the next period
        try:
            trainer.save(partial(self._keep, trainer, improved))
        except SaveFailed:
            self._take_back()
            raise
        self._tell_misnamed(trainer)
        return True

    def _settle(self, trainer: Trainer) -> None:
        """Waits for the save before, so that its failure does not cost the next one."""
        try:
            trainer.checkpointer.wait()
        except SaveFailed as error:
            self._take_back()
            trainer.journal.note(f"{error}; training goes on without it", "warning")

    def _take_back(self) -> None:
        """The best is again what it was before the save that failed."""
        if self.best_step != self._before[1]:
            self.given_up = self.best_value, self.best_step
        self.best_value, self.best_step = self._before

    def _keep(self, trainer: Trainer, improved: bool, path: Path) -> None:
        keeper = trainer.checkpointer
        if improved:
            keeper.mark_best(path)
        keeper.prune(self.keep_last, keeper.best(), partial(self._stays, trainer))

    def _tell_misnamed(self, trainer: Trainer) -> None:
        """That the evaluation has run, and has another metric than `best`."""
        evaluation = (self.best or "").partition(".")[0]
        measured = [name for name in trainer.results if name.startswith(f"{evaluation}.")]
        if measured and self.best not in measured:
            close = did_you_mean(str(self.best), measured) or f"; measured: {', '.join(measured)}"
            self._tell(trainer, f"hooks.checkpoint.best: there is no {self.best!r}{close}")

    def _tell(self, trainer: Trainer, text: str) -> None:
        if text not in self.told:
            trainer.journal.note(text, "warning")
        self.told.add(text)

    def state_dict(self) -> dict[str, Any]:
        best = {"best_value": self.best_value, "best_step": self.best_step}
        return best | {"given_up": self.given_up}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best_value, self.best_step = state["best_value"], state["best_step"]
        self.given_up = state.get("given_up", (math.nan, -1))


@torch.no_grad()
def all_finite(trainer: Trainer) -> bool:
    """Whether all losses so far and all weights are finite on all ranks; one synchronisation."""
    tensors = local(trainer.model.state_dict().values())
    floats = [t for t in tensors if t.is_floating_point() and t.numel()]
    largest = [torch.linalg.vector_norm(t, math.inf) for t in floats]  # offloaded: on the host
    largest = torch.stack([t.to(trainer.device, torch.float32) for t in largest])
    bad = ~largest.isfinite().all() | (trainer.meters.first_bad >= 0)
    return all_reduce_sum(bad.float()).item() == 0


def _card(trainer: Trainer) -> dict[str, str]:
    """What the file of weights says about itself; trunk, mean, std and size are JSON."""
    config = trainer.config
    return {
        "recipe": config.recipe or "",
        "step": str(trainer.step),
        "trunk": json.dumps(TRUNKS.check(config.trunk, "trunk")),
        "mean": json.dumps(config.data.mean),
        "std": json.dumps(config.data.std),
        "size": json.dumps(config.labelled.size),
        "vissl_lite": vissl_lite.__version__,
    }
