"""What is driven from step to step, and what is not there to drive."""

import pytest
import torch
from torch import nn
from training import small

from vissl_lite.engine.schedules import Schedules
from vissl_lite.errors import ConfigError


class Temperature(nn.Module):
    def __init__(self):
        super().__init__()
        self.temperature = 0.1


def schedules(optimizer, **given):
    config = small()
    config.schedules = given
    return Schedules(config, optimizer, Temperature(), 2.0, total_steps=100, steps_per_epoch=10)


def group(**given):
    return {"params": [nn.Parameter(torch.ones(2))], "decay_fixed": False, **given}


def test_schedules_drive_lr_decay_momentum_and_the_loss():
    groups = [group(lr_scale=1.0), group(lr_scale=0.5, weight_decay=0.0, decay_fixed=True)]
    adamw = torch.optim.AdamW(groups, weight_decay=0.04)
    line = {"name": "linear", "start": 1.0, "end": 0.0}
    driven = schedules(
        adamw,
        lr=line,
        weight_decay={"name": "linear", "start": 0.04, "end": 0.4},
        momentum={"name": "constant", "value": 0.95},
        temperature={"name": "linear", "start": 0.04, "end": 0.08},
        teacher_momentum={"name": "linear", "start": 0.9, "end": 1.0},
    )
    driven.apply(50)
    one, two = adamw.param_groups
    assert (one["lr"], two["lr"]) == (pytest.approx(1.0), pytest.approx(0.5))
    assert (one["weight_decay"], two["weight_decay"]) == (pytest.approx(0.22), 0.0)
    assert one["betas"] == (0.95, 0.999)
    assert driven.loss.temperature == pytest.approx(0.06)
    assert driven.values["teacher_momentum"] == pytest.approx(0.95)
    sgd = torch.optim.SGD([group(lr_scale=1.0)], lr=1.0, momentum=0.5)
    schedules(sgd, momentum={"name": "constant", "value": 0.7}).apply(0)
    assert sgd.param_groups[0]["momentum"] == 0.7


def test_a_schedule_of_nothing_is_refused():
    sgd = torch.optim.SGD([group()], lr=1.0)
    with pytest.raises(ConfigError, match=r"schedules\.temprature.*did you mean 'temperature'"):
        schedules(sgd, temprature={"name": "constant"})
