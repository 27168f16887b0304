"""Trunks to export, their norms with statistics that are neither 0 nor 1, and how to compare."""

import torch
from formats.layouts import randomised

from vissl_lite import TRUNKS
from vissl_lite.export.subject import Features, Subject
from vissl_lite.plugins import load_entries

NETWORKS = {
    "resnet50": {"name": "resnet", "depth": 50},
    "resnext50_32x4d": {"name": "resnet", "depth": 50, "groups": 32, "width_per_group": 4},
    "regnet_y_16gf": {"name": "regnet", "preset": "y_16gf"},
    "vit_s16": {"name": "vit", "size": "small", "patch_size": 16},
}


def subject(side=64, **config):
    """The trunk of a config; a ViT is for images of its own side."""
    load_entries()
    config = TRUNKS.check(config)
    trunk = randomised(TRUNKS.build(config, "trunk"))
    trunk.mean, trunk.std, trunk.size = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), None
    return Subject(trunk, config, config.get("image_size", side))


def on_meta(**config):
    """Shapes only."""
    load_entries()
    config = TRUNKS.check(config)
    with torch.device("meta"):
        return Subject(TRUNKS.build(config, "trunk"), config, 64)


@torch.no_grad()
def worst(features, of):
    """Largest difference from our features, as a share of the largest of them if that exceeds 1."""
    ours = Features(of.trunk)(of.probe())
    assert ours.abs().max() > 0.1
    return ((features - ours).abs().max() / ours.abs().max().clamp_min(1)).item()


def check(target, file):
    """The file gives our features, by the target's own check and by the printed lines."""
    exported = target.subject
    target.write(file)
    with torch.no_grad():
        assert worst(target.features(file, exported.probe()), exported) < 1e-5
    assert worst(loaded(target.usage(file), exported.probe()).flatten(1), exported) < 1e-5


@torch.no_grad()
def loaded(usage, x):
    """Runs the printed lines, then the model that they make."""
    names = {}
    exec(usage, names)
    return names["model"](x)
