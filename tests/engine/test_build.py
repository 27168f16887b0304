"""From config to parts: what is inferred is right, what does not fit is said."""

import pytest
import torch
from training import small

from vissl_lite.engine.build import build_loss, build_model, build_source, peak_lr
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
