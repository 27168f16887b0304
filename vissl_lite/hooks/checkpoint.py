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
from vissl_lite.errors import SaveFailed, did_you_mean
from vissl_lite.hooks.base import Hook
from vissl_lite.parallel.collectives import all_reduce_sum, broadcast_object, rank
from vissl_lite.parallel.shards import local
from vissl_lite.schema import above, at_least

if TYPE_CHECKING:
    from vissl_lite.engine.checkpoint import Checkpointer
    from vissl_lite.engine.trainer import Trainer


@HOOKS.register("checkpoint")
class Checkpoint(Hook):
    """Saves checkpoints while training and the trunk's weights at the end.

    `RUN/checkpoints` keeps the newest and the best; `resume=RUN` goes on from the newest. The end,
    early or not, is always saved and leaves `RUN/weights.safetensors`: the trunk's tensors under
    the trunk's own names, with recipe, step and the trunk's config (JSON) as metadata. Nothing is
    saved any more once a loss or a weight is not finite.

    Args:
        every_epochs: may be a fraction; 0: not by epochs.
        every_minutes: looked at when the loss is logged; null: not by time.
        every_steps: null: not by steps.
        keep_last: so many of the newest stay.
        best: metric of an evaluation, such as "knn.top1". The step that improves it is saved at
            once and stays until a better one comes.
        best_mode: whether the largest or the smallest value is best.
        background: training goes on while a thread writes a copy in host memory; null: on a GPU.
            A checkpoint that cannot be written is reported and left out, the last one is an error.

    Raises:
        ConfigError: a metric that no evaluation has.
    """

    last = True  # what the others did at this step, evaluations above all, is in the checkpoint

    def __init__(
        self,
        every_epochs: Annotated[float, at_least(0)] = 1.0,
        every_minutes: Annotated[float | None, above(0)] = 10.0,
        every_steps: Annotated[int | None, at_least(1)] = None,
        keep_last: Annotated[int, at_least(1)] = 2,
        best: str | None = None,
        best_mode: Literal["max", "min"] = "max",
        background: bool | None = None,
    ):
        self.every_epochs, self.every_steps = every_epochs, every_steps
        self.every_minutes, self.background = every_minutes, background
        self.keep_last, self.best, self.best_mode = keep_last, best, best_mode
        self.best_value, self.best_step = math.nan, -1
        self.given_up = math.nan, -1  # value and step of a best that could not be saved
        self._before = self.best_value, self.best_step  # before the last save
        self.late = False
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
        if self.every_minutes is not None:  # rank 0 decides: clocks differ
            minutes = (time.monotonic() - self.saved_at) / 60
            self.late = broadcast_object(minutes >= self.every_minutes)

    def after_step(self, trainer: Trainer) -> None:
        by_step = self.every_steps is not None and trainer.step % self.every_steps == 0
        due = by_step or self.late or trainer.at_end_of(self.every_epochs)
        if due or self._improved(trainer):
            try:
                self._save(trainer)
            except SaveFailed as error:
                trainer.journal.note(f"{error}; training goes on without it", "warning")

    def on_end(self, trainer: Trainer) -> None:
        saved = self._save(trainer)
        trainer.checkpointer.wait()
        if saved:
            file = trainer.run_dir / "weights.safetensors"
            weights_file.write(trainer.model.trunk.state_dict(), file, _card(trainer))

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
            self._tell(trainer, "the loss or a weight is not finite; nothing is saved any more")
            return False
        self._settle(trainer)
        self._before = self.best_value, self.best_step
        if improved := self._improved(trainer):
            self.best_value, self.best_step = trainer.results[self.best or ""], trainer.step
        self.saved_at, self.late = time.monotonic(), False  # a failure waits for the next period
        try:
            trainer.save(partial(self._keep, trainer.checkpointer, improved))
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

    def _keep(self, checkpointer: Checkpointer, improved: bool, path: Path) -> None:
        if improved:
            checkpointer.mark_best(path)
        checkpointer.prune(self.keep_last, checkpointer.best())

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
