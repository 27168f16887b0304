"""Against timm's own networks, loaded strictly by the printed lines; bound 1e-5."""

import pytest
import timm
import torch
from export.subjects import check, on_meta, subject

import vissl_lite
from vissl_lite.errors import ConfigError
from vissl_lite.export import timm as target_timm
from vissl_lite.export.target import arrange
from vissl_lite.export.timm import Timm, network

OTHERS = {
    "groups without a name": {"name": "resnet", "groups": 2, "width_per_group": 48},
    "other channels": {"name": "resnet", "depth": 18, "in_channels": 5},
    "regnetx_002": {"name": "regnet", "preset": "x_200mf"},
    "any ViT": {
        "name": "vit", "size": "tiny", "patch_size": 8, "image_size": 32, "layer_scale": 0.5,
        "heads": 6,
    },
    "adapter": {"name": "timm", "model": "convnext_atto", "in_channels": 1},
    "adapter with a network that we have too": {"name": "timm", "model": "regnety_002"},
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks(name, tmp_path):
    check(Timm(subject(**OTHERS[name])), tmp_path / "w.safetensors")


def test_our_load_reads_it_too_and_knows_its_pixels(tmp_path):
    exported = subject(name="regnet", preset="x_200mf")
    Timm(exported).write(tmp_path / "w.safetensors")
    trunk = vissl_lite.load(tmp_path / "w.safetensors")
    assert (trunk.mean, trunk.std, trunk.size) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), None)
    assert trunk.config == exported.config


REGNETS = {
    "x_400mf": "regnetx_004",
    "y_1_6gf": "regnety_016",
    "y_32gf": "regnety_320",
    "y_64gf_seer": "regnety_640",
    "y_128gf": "regnety_1280",
    "y_256gf_seer": "regnety_2560",
}


@pytest.mark.parametrize("preset", REGNETS)
def test_names_of_regnets(preset):
    ours = on_meta(name="regnet", preset=preset)
    call = network(ours)
    assert call.positional == (REGNETS[preset],)
    with torch.device("meta"):
        theirs = timm.create_model(REGNETS[preset], num_classes=0).state_dict()
    assert set(arrange(ours, call, theirs)) == set(theirs)


def test_a_regnet_of_the_same_name_with_other_widths():
    ours = on_meta(name="regnet", preset="y_64gf_classy")
    with torch.device("meta"):
        theirs = timm.create_model("regnety_640", num_classes=0).state_dict()
    with pytest.raises(ConfigError, match=r"regnety_640.*is another network than this trunk: s1"):
        arrange(ours, network(ours), theirs)


REFUSED = {
    "its stem is CIFAR's": {"name": "resnet", "stem": "cifar"},
    "every layer is 0.5 times as wide": {"name": "resnet", "width_multiplier": 0.5},
    "its RegNets are named ones": {"name": "anynet", "depths": [1, 1, 1, 1]},
    "it is the trunk torchvision": {"name": "torchvision"},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_timm_cannot_express(reason):
    with pytest.raises(ConfigError, match=rf"timm has no network like this.*{reason}"):
        network(on_meta(**REFUSED[reason]))


def test_without_timm(monkeypatch):
    monkeypatch.setattr(target_timm, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install timm"):
        Timm(on_meta(name="resnet"))
