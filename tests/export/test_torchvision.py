"""Against torchvision's own networks, loaded strictly by the printed lines; bound 1e-5."""

import pytest
from export.subjects import check, on_meta, subject

from vissl_lite.errors import ConfigError
from vissl_lite.export.torchvision import TorchVision, network

OTHERS = {
    "stages that torchvision rounds otherwise": {"name": "regnet", "preset": "x_400mf"},
    "a stem of its own": {"name": "regnet", "preset": "y_200mf", "stem_width": 16},
    "anynet": {
        "name": "anynet", "depths": [1, 2], "widths": [16, 32], "group_widths": [8, 16],
        "se_ratio": 0.5,
    },
    "vit_tiny": {"name": "vit", "size": "tiny", "patch_size": 8, "image_size": 32, "heads": 6},
    "adapter": {"name": "torchvision", "model": "mobilenet_v3_small"},
    "adapter of a map": {"name": "torchvision", "model": "convnext_tiny"},
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks(name, tmp_path):
    check(TorchVision(subject(**OTHERS[name])), tmp_path / "w.pth")


CALLS = {
    "resnet50()": {"name": "resnet"},
    "resnext101_32x8d()": {"name": "resnet", "depth": 101, "groups": 32, "width_per_group": 8},
    "resnet101(groups=32, width_per_group=16)": {
        "name": "resnet", "depth": 101, "groups": 32, "width_per_group": 16,
    },
    "wide_resnet50_2()": {"name": "resnet", "width_per_group": 128},
    "regnet_x_400mf()": {"name": "regnet", "preset": "x_400mf", "rounding": "torchvision"},
    "regnet_y_128gf()": {"name": "regnet", "preset": "y_128gf"},
    "RegNet(torchvision.models.regnet.BlockParams(depths=[2, 7, 17, 1],"
    " widths=[2020, 4040, 11110, 28280], group_widths=[1010, 1010, 1010, 1010],"
    " bottleneck_multipliers=[1.0, 1.0, 1.0, 1.0], strides=[2, 2, 2, 2], se_ratio=0.25),"
    " stem_width=32)": {"name": "regnet", "preset": "y_10b_seer"},
    "vit_h_14()": {"name": "vit", "size": "huge", "patch_size": 14},
    "vit_b_32(image_size=384)": {
        "name": "vit", "size": "base", "patch_size": 32, "image_size": 384,
    },
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_calls(call):
    assert str(network(on_meta(**CALLS[call]))[0]) == f"torchvision.models.{call}"


REFUSED = {
    "its stem is CIFAR's": {"name": "resnet", "stem": "cifar"},
    "every layer is 2 times as wide": {"name": "resnet", "width_multiplier": 2},
    "its images have 4 channels": {"name": "regnet", "in_channels": 4},
    "it has 200 layers": {"name": "resnet", "depth": 200},
    "its branches have LayerScale": {"name": "vit", "layer_scale": 1e-5},
    "it is the trunk timm": {"name": "timm"},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_torchvision_cannot_express(reason):
    with pytest.raises(ConfigError, match=rf"torchvision has no network like this.*{reason}"):
        network(on_meta(**REFUSED[reason]))
