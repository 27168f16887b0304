"""Each format: a network in its layout and under its names is loaded whole and computes the same.

Outputs are compared in float64, to 1e-10 of the largest value.
"""

import argparse

import pytest
import timm
import torch
import torchvision
from formats.layouts import (
    PaddedResNet,
    SwagViT,
    classy_regnet,
    randomised,
    resnet_map,
    tv_resnet,
)
from torch import nn

import vissl_lite
from vissl_lite.config import IMAGENET_MEAN, IMAGENET_STD

SEQUENTIAL = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


def prefixed(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def head(prefix, *shape):
    return {f"{prefix}.weight": torch.ones(*shape or (2, 3)), f"{prefix}.bias": torch.ones(2)}


def without_fc(state):
    return {k: t for k, t in state.items() if not k.startswith("fc.")}


def resnet18(classes=7):
    return tv_resnet(classes=classes), resnet_map


def bare(network, function, keep_head=True):
    state = network.state_dict()
    return state if keep_head else without_fc(state), network, function


def swav():
    network = randomised(PaddedResNet(widen=1))
    heads = {**head("projection_head.0"), "prototypes.weight": torch.ones(4, 2)}
    return prefixed("module.", {**network.state_dict(), **heads}), network, apply


def swav_checkpoint():
    network = randomised(PaddedResNet(widen=2))
    state = prefixed("module.", {**network.state_dict(), "prototypes.weight": torch.ones(4, 2)})
    momenta = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    return {"epoch": 3, "state_dict": state, "optimizer": momenta}, network, apply


def vissl(network, function, trunk):
    model = {"trunk": trunk, "heads": {"0.clf.0.weight": torch.ones(2, 2)}}
    state = {
        "base_model": {"model": model, "meta": {"arch": "x"}},
        "optimizer": {"optim": {"state": {0: {"momentum_buffer": torch.ones(2)}}}},
        "loss": {"local_queue": torch.ones(4)},
    }
    return {"phase_idx": 1, "loss": 3.5, "classy_state_dict": state}, network, function


def vissl_resnet():
    network, function = resnet18()
    return vissl(network, function, prefixed("_feature_blocks.", without_fc(network.state_dict())))


def vissl_regnet(parts=((), (), (), ())):
    network = classy_regnet([1, 1, 4, 7], [24, 56, 152, 368], [8] * 4, parts)
    return vissl(network, apply, network.state_dict())


def moco(fc):
    network, function = resnet18()
    query = {**without_fc(network.state_dict()), **head(fc)}
    encoders = {**prefixed("encoder_q.", query), **prefixed("encoder_k.", query)}
    state = {**encoders, "queue": torch.ones(2, 4), "queue_ptr": torch.zeros(1)}
    return {"arch": "x", "state_dict": prefixed("module.", state)}, network, function


def moco_v3(network, function, top):
    state = {k: t for k, t in network.state_dict().items() if not k.startswith(top)}
    state |= head(f"{top}.0")
    encoders = {**prefixed("base_encoder.", state), **prefixed("momentum_encoder.", state)}
    encoders |= head("predictor.0")
    return {"state_dict": prefixed("module.", encoders)}, network, function


def moco_v3_resnet():
    return moco_v3(*resnet18(), "fc")


def tiny_vit(**keys):
    torch.manual_seed(0)
    return randomised(timm.create_model("vit_tiny_patch16_224", img_size=48, **keys))


def cls(network, x):
    return network.forward_features(x)[:, 0]


def moco_v3_vit():
    return moco_v3(tiny_vit(), cls, "head")


def dino(network, function, state):
    heads = prefixed("head.", head("mlp.0"))
    student = prefixed("module.", {**prefixed("backbone.", _zeros(state)), **heads})
    teacher = {**prefixed("backbone.", state), **heads}
    args = argparse.Namespace(arch="x")
    saved = {"student": student, "teacher": teacher, "args": args, "epoch": 1}
    return {**saved, "dino_loss": {"center": torch.ones(1, 4)}}, network, function


def _zeros(state):
    return {k: torch.zeros_like(t) for k, t in state.items()}


def dino_resnet():
    network, function = resnet18()
    return dino(network, function, without_fc(network.state_dict()))


def dino_vit():
    network = tiny_vit(num_classes=0)
    return dino(network, cls, network.state_dict())


def barlow_twins():
    network, function = resnet18()
    state = prefixed("backbone.", without_fc(network.state_dict())) | head("projector.0")
    state |= {"bn.running_mean": torch.ones(2), "bn.running_var": torch.ones(2)}
    return {"epoch": 1, "model": prefixed("module.", state)}, network, function


def vicreg():
    network = randomised(PaddedResNet(widen=2))
    state = prefixed("backbone.", network.state_dict()) | head("projector.0")
    return {"epoch": 1, "model": prefixed("module.", state)}, network, apply


def sequential(network):
    return nn.Sequential(*(network.get_submodule(name) for name in SEQUENTIAL))


def byol_state_dicts():
    network = sequential(tv_resnet())
    encoder = prefixed("encoder.", network.state_dict()) | prefixed("projetion.", head("net.0"))
    names = ("online_network_state_dict", "target_network_state_dict")
    return dict.fromkeys(names, encoder), network, apply


def byol_one_model():
    network = sequential(tv_resnet())
    encoder = prefixed("encoder.", network.state_dict()) | prefixed("projetion.", head("l1"))
    both = prefixed("online_network.", encoder) | prefixed("target_network.", encoder)
    state = both | prefixed("predictor.", head("l1"))
    return {"steps": 5, "model": prefixed("module.", state)}, network, apply


def byol_lucidrains():
    network, function = resnet18()
    net = network.state_dict()
    state = {**prefixed("net.", net), **prefixed("online_encoder.net.", net)}
    state |= prefixed("target_encoder.net.", net) | head("online_encoder.projector.0")
    return state | head("online_predictor.0"), network, function


def byol_lightly():
    network = sequential(tv_resnet())
    state = prefixed("backbone.", network.state_dict()) | head("projection_head.layers.0")
    state |= prefixed("backbone_momentum.", network.state_dict()) | head("prediction_head.layers.0")
    return {"state_dict": state}, network, apply


def swag_regnet():
    network = classy_regnet([2, 1, 3, 1], [24, 64, 152, 376], [8, 16, 8, 8])
    return {**network.state_dict(), **head("head.fc")}, network, apply


def swag_vit():
    network = SwagViT()
    return bare(network, apply)


def wsl():
    torch.manual_seed(0)
    network = tv_resnet(50, groups=32, width_per_group=4)
    return bare(network, resnet_map)


def tv_regnet(name):
    torch.manual_seed(0)
    return bare(randomised(torchvision.models.get_model(name)), regnet_map)


def regnet_map(network, x):
    return network.trunk_output(network.stem(x))


def tv_vit():
    torch.manual_seed(0)
    network = randomised(torchvision.models.VisionTransformer(48, 16, 12, 3, 192, 768))
    state = network.state_dict()
    network.heads = nn.Identity()
    return state, network, apply


def timm_net(name, **keys):
    torch.manual_seed(0)
    network = randomised(timm.create_model(name, num_classes=6, **keys))
    return bare(network, lambda network, x: network.forward_features(x))


def timm_vit():
    return bare(tiny_vit(num_classes=6, init_values=1e-5), cls)


def apply(network, x):
    return network(x)


WIDE = {"name": "resnet", "depth": 50, "width_per_group": 128, "groups": 1}
FORMATS = {
    "SwAV": (swav, {"depth": 18, "width_multiplier": 1.0}),
    "SwAV, a checkpoint, twice as wide": (swav_checkpoint, {"width_multiplier": 2.0}),
    "VISSL, ResNet": (vissl_resnet, {"depth": 18}),
    "VISSL, RegNet": (vissl_regnet, {"preset": "y_200mf"}),
    "VISSL, RegNet in parts": (
        lambda: vissl_regnet(((1,), (1,), (2, 4), (7,))),
        {"preset": "y_200mf"},
    ),
    "MoCo v1": (lambda: moco("fc"), {"depth": 18}),
    "MoCo v2": (lambda: moco("fc.2"), {"depth": 18}),
    "MoCo v3, ResNet": (moco_v3_resnet, {"depth": 18}),
    "MoCo v3, ViT": (moco_v3_vit, {"size": "tiny", "patch_size": 16, "image_size": 48}),
    "DINO, ResNet": (dino_resnet, {"depth": 18}),
    "DINO, ViT": (dino_vit, {"size": "tiny", "image_size": 48}),
    "DINO, published ViT": (lambda: bare(tiny_vit(num_classes=0), cls), {"size": "tiny"}),
    "Barlow Twins": (barlow_twins, {"depth": 18}),
    "Barlow Twins, published": (lambda: bare(*resnet18(), keep_head=False), {"depth": 18}),
    "VICReg": (vicreg, {"depth": 18, "width_multiplier": 2.0}),
    "BYOL, state dicts": (byol_state_dicts, {"depth": 18}),
    "BYOL, one model": (byol_one_model, {"depth": 18}),
    "BYOL, lucidrains": (byol_lucidrains, {"depth": 18}),
    "BYOL, lightly": (byol_lightly, {"depth": 18}),
    "SWAG, RegNet": (swag_regnet, {"name": "anynet", "depths": [2, 1, 3, 1]}),
    "SWAG, ViT": (swag_vit, {"size": "tiny", "patch_size": 8, "image_size": 32}),
    "WSL, ResNeXt": (wsl, {"depth": 50, "groups": 32, "width_per_group": 4}),
    "torchvision, ResNet": (lambda: bare(*resnet18()), {"depth": 18, "stem": "imagenet"}),
    "torchvision, Wide ResNet": (
        lambda: bare(tv_resnet(50, width_per_group=128), resnet_map),
        WIDE,
    ),
    "torchvision, RegNetX": (lambda: tv_regnet("regnet_x_400mf"), {"rounding": "torchvision"}),
    "torchvision, RegNetY": (lambda: tv_regnet("regnet_y_400mf"), {"preset": "y_400mf"}),
    "torchvision, ViT": (tv_vit, {"size": "tiny", "image_size": 48}),
    "timm, ResNet": (lambda: timm_net("resnet18"), {"depth": 18}),
    "timm, RegNetX": (lambda: timm_net("regnetx_002"), {"preset": "x_200mf"}),
    "timm, RegNetY": (lambda: timm_net("regnety_002"), {"preset": "y_200mf"}),
    "timm, ViT": (timm_vit, {"size": "tiny", "layer_scale": 1e-5}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_is_loaded_whole_and_computes_the_same(name, tmp_path, monkeypatch):
    make, config = FORMATS[name]
    saved, network, function = make()
    built = _configs(monkeypatch)
    torch.save(saved, tmp_path / "file")
    trunk = vissl_lite.load(tmp_path / "file")
    assert config.items() <= built[0].items()
    assert sorted(trunk.report.loaded) == sorted(trunk.state_dict())
    assert not trunk.report.missing + trunk.report.wrong_shape + trunk.report.unknown
    x = torch.randn(2, 3, *[config.get("image_size", 48)] * 2, dtype=torch.float64)
    with torch.no_grad():
        (ours,) = trunk.double()(x).values()
        theirs = function(network.double(), x)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()
    assert theirs.std() > 1e-3


def _configs(monkeypatch):
    """The configs that trunks are built from."""
    seen, build = [], vissl_lite.TRUNKS.build

    def spy(config, *args, **keys):
        seen.append(config)
        return build(config, *args, **keys)

    monkeypatch.setattr(vissl_lite.TRUNKS, "build", spy)
    return seen


def report_of(saved, path):
    torch.save(saved, path)
    return vissl_lite.load(path).report


def test_ignored_tensors_are_counted_with_their_reason(tmp_path):
    size = len(without_fc(tv_resnet().state_dict()))
    report = report_of(moco("fc.2")[0], tmp_path / "moco")
    counts = {reason: len(names) for reason, names in report.ignored.items()}
    assert counts == {"head": 2, "momentum encoder": size + 2, "queue": 2}
    assert report.renamed["state_dict.module.encoder_q.conv1.weight"] == "conv1.weight"
    assert len(report.renamed) == size
    report = report_of(swav_checkpoint()[0], tmp_path / "swav")
    assert {k: len(v) for k, v in report.ignored.items()} == {"head": 1, "optimizer": 1}
    report = report_of(vissl_resnet()[0], tmp_path / "vissl")
    counts = {k: len(v) for k, v in report.ignored.items()}
    assert counts == {"head": 1, "optimizer": 1, "training state": 1}
    report = report_of(dino_resnet()[0], tmp_path / "dino")
    counts = {k: len(v) for k, v in report.ignored.items()}
    assert counts == {"head": 4, "student": size, "state of the loss": 1}


@pytest.mark.parametrize(
    ("make", "pixels"),
    [
        (swav, (IMAGENET_MEAN, (0.228, 0.224, 0.225), 224)),
        (lambda: moco("fc"), (IMAGENET_MEAN, IMAGENET_STD, 224)),
        (vissl_resnet, (IMAGENET_MEAN, IMAGENET_STD, None)),
        (dino_vit, (IMAGENET_MEAN, IMAGENET_STD, 48)),
        (timm_vit, (None, None, 48)),
        (lambda: bare(*resnet18()), (None, None, None)),
    ],
)
def test_pixels_where_they_are_known(make, pixels, tmp_path):
    torch.save(make()[0], tmp_path / "file")
    trunk = vissl_lite.load(tmp_path / "file")
    assert (trunk.mean, trunk.std, trunk.size) == pixels
    assert not trunk.training
