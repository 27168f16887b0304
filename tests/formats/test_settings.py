"""The config of every network that our trunks can be, from the shapes of its tensors alone."""

import pytest
import torch

from vissl_lite import TRUNKS
from vissl_lite.errors import ConfigError
from vissl_lite.formats.recognise import infer
from vissl_lite.trunks.regnet import PRESETS


def on_meta(config):
    with torch.device("meta"):
        return TRUNKS.build(config, "trunk").state_dict()


def shapes(state):
    return {name: tensor.shape for name, tensor in state.items()}


RESNETS = [
    *({"depth": depth} for depth in (18, 34, 50, 101, 152, 200)),
    *({"depth": 50, "width_multiplier": m} for m in (2.0, 4.0, 5.0)),
    *({"depth": 101, "groups": 32, "width_per_group": w} for w in (4, 8, 16, 32, 48)),
    {"depth": 50, "width_per_group": 128},
    {"depth": 18, "width_multiplier": 0.125, "stem": "cifar", "in_channels": 1},
    {"depth": 50, "width_multiplier": 0.5, "groups": 4, "width_per_group": 16},
]


@pytest.mark.parametrize("keys", RESNETS)
def test_resnet(keys):
    config = TRUNKS.check({"name": "resnet", **keys}, "trunk")
    found = infer(on_meta(config))
    assert TRUNKS.check(found, "trunk") == config


@pytest.mark.parametrize("rounding", ["classy", "torchvision"])
@pytest.mark.parametrize("preset", PRESETS)
def test_regnet(preset, rounding):
    state = on_meta({"name": "regnet", "preset": preset, "rounding": rounding})
    found = infer(state)
    assert found["preset"] == preset
    assert shapes(on_meta(found)) == shapes(state)


def test_a_regnet_that_nobody_published():
    config = {"name": "anynet", "depths": [1, 4, 4, 1], "widths": [64, 128, 352, 896]}
    config |= {"group_widths": [32] * 4, "se_ratio": 0.5, "stem_width": 16, "in_channels": 4}
    found = infer(on_meta(config))
    assert TRUNKS.check(found, "trunk") == TRUNKS.check(config, "trunk")


VITS = [
    *({"size": size} for size in ("tiny", "small", "base", "large")),
    {"size": "huge", "patch_size": 14, "image_size": 518},
    {"size": "small", "patch_size": 8, "in_channels": 1},
    {"size": "large", "patch_size": 14, "layer_scale": 1e-5},
]


@pytest.mark.parametrize("keys", VITS)
def test_vit(keys):
    config = TRUNKS.check({"name": "vit", **keys}, "trunk")
    assert TRUNKS.check(infer(on_meta(config)), "trunk") == config


def test_networks_that_our_trunks_cannot_be():
    state = on_meta({"name": "resnet", "depth": 18})
    less = {name: t for name, t in state.items() if not name.startswith("layer3.1.")}
    with pytest.raises(ConfigError, match=r"a ResNet with \(2, 2, 1, 2\) basic blocks is none of"):
        infer(less)
    state = on_meta({"name": "vit", "size": "tiny"})
    less = {name: t for name, t in state.items() if not name.startswith("blocks.11.")}
    with pytest.raises(ConfigError, match="a ViT of 11 blocks with 192 channels is none of"):
        infer(less)
    with pytest.raises(ConfigError, match=r"neither the file nor the names .* \(features\.0\.0"):
        infer({"features.0.0.weight": torch.ones(1)})
