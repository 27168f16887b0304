"""A state dict for torchvision's own network. Its classifier becomes nn.Identity()."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from vissl_lite.engine.state import differences
from vissl_lite.export.regnets import stages
from vissl_lite.export.resnets import resnet_name
from vissl_lite.export.subject import Subject, pooled
from vissl_lite.export.target import Call, Target, arrange, refuse
from vissl_lite.formats.recognise import infer
from vissl_lite.trunks.regnet import regnet
from vissl_lite.trunks.vit import SIZES

MODELS = "torchvision.models."


class TorchVision(Target):
    """For torchvision, strictly: `model.load_state_dict(torch.load(file))`."""

    ending = ".torchvision.pth"
    program = "torchvision"

    def __init__(self, subject: Subject):
        super().__init__(subject)
        self.call, self.classifier = network(subject)
        self.tensors = arrange(subject, self.call, self._build().state_dict())

    def _build(self) -> nn.Module:
        model = self.call()
        setattr(model, self.classifier, nn.Identity())
        return model.eval()

    def write(self, file: Path) -> None:
        torch.save(self.tensors, file)

    def features(self, file: Path, x_NCHW: Tensor) -> Tensor:
        model = self._build()
        model.load_state_dict(torch.load(file, weights_only=True), strict=True)
        return pooled(model(x_NCHW))

    def usage(self, file: Path) -> str:
        return (
            f"import torch, torchvision\nmodel = {self.call}\n"
            f"model.{self.classifier} = torch.nn.Identity()\n"
            f"model.load_state_dict(torch.load({str(file)!r}))\nmodel.eval()"
        )


def network(subject: Subject) -> tuple[Call, str]:
    """The call that makes torchvision's network, and the name of its classifier.

    Raises:
        ConfigError: it has none that computes the same.
    """
    trunk, config = subject.trunk, subject.config
    name = config["name"]
    if config["in_channels"] != 3:
        raise refuse("torchvision", f"its images have {config['in_channels']} channels")
    if name == "torchvision":
        return Call(MODELS + config["model"]), trunk.classifier
    if name not in ("resnet", "regnet", "anynet", "vit"):
        raise refuse("torchvision", f"it is the trunk {name}")
    inferred = infer(trunk.state_dict())
    if name == "vit":
        return _vit({**inferred, "heads": trunk.heads}), "heads"
    return _resnet({**config, **inferred}) if name == "resnet" else _regnet(trunk, inferred), "fc"


def _resnet(config: dict[str, Any]) -> Call:
    name, keywords = resnet_name(config, "torchvision", "groups", "width_per_group")
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise refuse("torchvision", f"it has {config['depth']} layers")
    return Call(MODELS + name, (), keywords)


def _regnet(trunk: Any, config: dict[str, Any]) -> Call:
    """By its name where torchvision has it with the same widths, else by its stages."""
    preset = config.get("preset")
    if f"regnet_{preset}" in torchvision.models.list_models(module=torchvision.models):
        with torch.device("meta"):
            twin = regnet(preset, rounding="torchvision")
        if not differences(trunk.state_dict(), twin.state_dict()):
            return Call(f"{MODELS}regnet_{preset}")
    sizes = stages(trunk)
    depth = len(sizes["depths"])
    block = {
        **{key: sizes[key] for key in ("depths", "widths", "group_widths")},
        "bottleneck_multipliers": [1.0] * depth,
        "strides": [2] * depth,
        "se_ratio": sizes["se_ratio"] or None,
    }
    stages_of = Call(MODELS + "regnet.BlockParams", (), block)
    return Call(MODELS + "RegNet", (stages_of,), {"stem_width": sizes["stem_width"]})


def _vit(config: dict[str, Any]) -> Call:
    if "layer_scale" in config:
        raise refuse("torchvision", "its branches have LayerScale")
    width, blocks, usual = SIZES[config["size"]]
    side, patch_size, heads = config["image_size"], config["patch_size"], config["heads"]
    name = f"vit_{config['size'][0]}_{patch_size}"
    if heads == usual and name in torchvision.models.list_models(module=torchvision.models):
        return Call(MODELS + name, (), {} if side == 224 else {"image_size": side})
    sizes = {"image_size": side, "patch_size": patch_size, "num_layers": blocks}
    sizes |= {"num_heads": heads, "hidden_dim": width, "mlp_dim": 4 * width}
    return Call(MODELS + "VisionTransformer", (), sizes)
