"""What changes from step to step: learning rate, weight decay, momentum, a loss's temperature."""

from __future__ import annotations

import torch
from torch import nn

from vissl_lite import SCHEDULES
from vissl_lite.config import Config
from vissl_lite.errors import ConfigError, did_you_mean


class Schedules:
    """Sets learning rate, weight decay, momentum and loss attributes before every step.

    The schedule of `lr` gives a factor of the peak learning rate (and of each group's own scale);
    any other gives the value itself. A target that is not the optimizer's is an attribute of the
    loss (`temperature`) or the momentum of the teacher (`teacher_momentum`).
    """

    OF_THE_OPTIMIZER = ("lr", "weight_decay", "momentum")

    def __init__(
        self,
        config: Config,
        optimizer: torch.optim.Optimizer,
        loss: nn.Module,
        lr: float,
        total_steps: int,
        steps_per_epoch: int,
    ):
        self.optimizer, self.loss, self.lr, self.total_steps = optimizer, loss, lr, total_steps
        self.values: dict[str, float] = {"teacher_momentum": config.teacher_momentum}
        runtime = {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch}
        self.schedules = {
            target: SCHEDULES.build(schedule, f"schedules.{target}", **runtime)
            for target, schedule in {"lr": {"name": "constant"}, **config.schedules}.items()
        }
        for target in self.schedules:
            self._check_target(target)

    def _check_target(self, target: str) -> None:
        known = [*self.OF_THE_OPTIMIZER, "teacher_momentum"]
        if target not in known and not isinstance(getattr(self.loss, target, None), float):
            own = [key for key, value in vars(self.loss).items() if isinstance(value, float)]
            close = did_you_mean(target, known + own) or ";"
            raise ConfigError(
                f"schedules.{target}: nothing of that name to drive{close}"
                f" there are {', '.join(known + own)}"
            )

    def apply(self, step: int) -> None:
        """Sets everything for the step about to be taken, counted from 0."""
        where = step / self.total_steps
        for target, schedule in self.schedules.items():
            value = schedule(where) * (self.lr if target == "lr" else 1)
            self.values[target] = value
            if target in self.OF_THE_OPTIMIZER:
                self._set_groups(target, value)
            elif target != "teacher_momentum":
                setattr(self.loss, target, value)

    def _set_groups(self, target: str, value: float) -> None:
        for group in self.optimizer.param_groups:
            if target == "lr":
                group["lr"] = value * group.get("lr_scale", 1.0)
            elif target == "weight_decay" and not group["decay_fixed"]:
                group["weight_decay"] = value
            elif target == "momentum" and "betas" in group:
                group["betas"] = (value, group["betas"][1])
            elif target == "momentum":
                group["momentum"] = value
