"""From config to parts: what is inferred is right, what does not fit is said."""

import pytest
import torch
from torch import nn
from training import small

from vissl_lite.engine.build import Schedules, build_loss, build_model, build_source, peak_lr
from vissl_lite.engine.parts import Parts
from vissl_lite.errors import ConfigError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("rule", "value", "sentence"),
    [
        ("none", 0.05, "learning rate: 0.05, as given"),
        ("linear", 0.2, "learning rate: 0.05 x 16/4 = 0.2"),
        ("sqrt", 0.1, "learning rate: 0.05 x sqrt(16/4) = 0.1"),
    ],
)
def test_the_learning_rate_is_scaled_openly(rule, value, sentence):
    config = small(f"++lr_scaling.rule={rule}", "++lr_scaling.reference_batch=4")
    got, text = peak_lr(config)
    assert got == pytest.approx(value)
    assert text == sentence


def test_widths_follow_from_the_part_before():
    heads = "++heads=[{name: mlp, hidden: [32], out_dim: 16}, {name: prototypes}]"
    model = build_model(small(heads), num_classes=None)
    assert model.heads[0](torch.randn(4, 64)).shape == (4, 16)
    assert model.scorer is model.heads[1]
    assert build_model(small("++layer=res3", "++heads=[linear]"), 7).heads[0].in_features == 16


def test_logits_come_last():
    config = small("++heads=[{name: linear, out_dim: 4}, {name: mlp}]")
    with pytest.raises(ConfigError, match=r"heads\[1\]: follows a head that gives logits"):
        build_model(config, 10)


def test_an_unknown_layer_is_named():
    with pytest.raises(ConfigError, match="no 'res6'; did you mean 'res5'"):
        build_model(small("++layer=res6"), 10)


def test_a_loss_that_needs_tags_says_what_is_missing():
    with pytest.raises(ConfigError, match="'hashtag_softmax' needs images with tags, and data"):
        Parts(small("loss=hashtag_softmax", "++heads=[linear]"), CPU)


@pytest.mark.parametrize("loss", ["swav", "cross_entropy", "binary_cross_entropy"])
def test_a_loss_of_scores_needs_a_scorer_at_once(loss):
    config = small(f"loss={loss}")
    with pytest.raises(ConfigError, match=f"loss: {loss} needs scores; end the heads with a sc"):
        build_loss(config, build_model(config, 10), build_source(config), 10)


def test_maps_need_a_pool():
    with pytest.raises(ConfigError, match="pool: none, but layer 'res5' gives maps of 2 x 2; set"):
        Parts(small("++pool=none"), CPU)


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
