import importlib.util
from functools import partial

import pytest
import timm
import torch

from vissl_lite.errors import ConfigError
from vissl_lite.layers.norm import BatchNorm2d
from vissl_lite.trunks.timm import Timm

LAYERS = {
    "resnet18": ["act1", "layer1", "layer2", "layer3", "layer4", "pre_logits"],
    "regnety_002": ["stem", "s1", "s2", "s3", "s4", "pre_logits"],
    "convnext_atto": ["stages.0", "stages.1", "stages.2", "stages.3", "pre_logits"],
    "vit_tiny_patch16_224": [*(f"blocks.{i}" for i in range(12)), "pre_logits"],
    "swin_tiny_patch4_window7_224": ["layers.0", "layers.1", "layers.2", "layers.3", "pre_logits"],
}


@pytest.mark.parametrize("model", LAYERS)
def test_layers_are_those_that_timm_names(model):
    with torch.device("meta"):
        trunk = Timm(model)
    assert list(trunk.widths) == LAYERS[model]
    assert trunk.widths["pre_logits"] == trunk.model.num_features


@pytest.mark.parametrize("model", ["resnet18", "regnety_002", "convnext_atto"])
def test_outputs_are_those_of_the_model(model):
    trunk = Timm(model)
    maps = timm.create_model(model, features_only=True)
    vector = timm.create_model(model, num_classes=0)
    vector.load_state_dict(trunk.model.state_dict(), strict=True)
    maps.load_state_dict(_flat(trunk.model.state_dict(), maps), strict=True)
    x = torch.randn(2, 3, 64, 64)
    for mode in (True, False):
        out = trunk.train(mode)(x, list(trunk.widths))
        expected = [*maps.train(mode)(x), vector.train(mode)(x)]
        for y, z in zip(out.values(), expected):
            torch.testing.assert_close(y, z, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("swin_tiny_patch4_window7_224", {"embed_dim": 8, "depths": (2, 1), "num_heads": (1, 2)}),
        ("eva02_tiny_patch14_336", {"embed_dim": 24, "depth": 1, "num_heads": 2}),
    ],
)
def test_buffers_that_are_not_saved(model, settings, monkeypatch):
    """Masks and rotary embeddings, on the device that a run builds its trunk on."""
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, **settings))
    trunk = Timm(model).eval()
    assert trunk.widths["pre_logits"] == trunk.model.num_features
    size = trunk.model.pretrained_cfg["input_size"]
    x = torch.randn(1, *size)
    assert torch.equal(trunk(x)["pre_logits"], trunk.model(x))


def _flat(state, maps):
    """features_only flattens 'stages.0.x' to 'stages_0.x' and drops the final norm."""
    return {k: state.get(k, state.get(k.replace("_", ".", 1))) for k in maps.state_dict()}


def test_norm_with_activation_is_ours():
    norms = [m for m in Timm("regnety_002").modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) > 40
    assert all(isinstance(m, BatchNorm2d) for m in norms)


def test_mistakes(monkeypatch):
    with pytest.raises(ConfigError, match="unknown model 'resnet19'; did you mean 'resnet1"):
        Timm("resnet19")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("vissl_lite.trunks.timm.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="timm is not installed; pip install timm"):
        Timm()
