"""What a hook is. This file registers nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vissl_lite.data.batch import Batch
from vissl_lite.model import Outputs

if TYPE_CHECKING:
    from vissl_lite.engine.trainer import Trainer


class Hook:
    """Watches or nudges training, and never defines the method. The loop, with its hooks:

        hook.on_start(trainer)                         # everything is built, a resumed state loaded
        for batch in loader:
            schedules
            for micro in split(batch):
                outputs = model(micro.views); loss = objective(outputs, micro); backward(loss)
                hook.after_backward(trainer, outputs, micro)
            clip; optimizer.step(); model.after_step(); trainer.step += 1
            if trainer.step % log_every == 0:
                hook.on_log(trainer, record)           # may add to the record
            hook.after_step(trainer)
        hook.on_end(trainer)                           # also after SIGTERM, not after an error

    Hooks run in the order of the config, those with `last` after all others. In `after_step` and
    `after_backward` a hook must not read a tensor on the host: that would make the device wait in
    every step. All ranks call all hooks.
    """

    last = False

    def on_start(self, trainer: Trainer) -> None:
        """Once before the first step."""

    def after_backward(self, trainer: Trainer, outputs: Outputs, batch: Batch) -> None:
        """After the backward pass of a micro-batch; the outputs are still there."""

    def after_step(self, trainer: Trainer) -> None:
        """After every step; `trainer.step` counts the steps done."""

    def on_log(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Every `log_every` steps, before the record goes to the loggers."""

    def on_end(self, trainer: Trainer) -> None:
        """Once after the last step; `trainer.stop.reason` says why, if it came early."""

    def after_evaluations(
        self, run_dir: Path, device: torch.device, note: Callable[[str, str], None]
    ) -> None:
        """Instead of all the above, once, in a job that only evaluates (`train.epochs: 0`)."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs of this hook."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
