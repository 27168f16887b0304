"""Weights for timm's own network without classifier (`num_classes=0`)."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from vissl_lite.errors import ConfigError
from vissl_lite.export.resnets import resnet_name
from vissl_lite.export.subject import Subject, pooled
from vissl_lite.export.target import Call, Target, arrange, refuse
from vissl_lite.formats.recognise import infer
from vissl_lite.trunks.vit import attention_heads


class Timm(Target):
    """For timm, strictly: `timm.create_model(name, num_classes=0, checkpoint_path=file)`."""

    ending = ".timm.safetensors"
    program = "timm"

    def __init__(self, subject: Subject):
        super().__init__(subject)
        if find_spec("timm") is None:
            raise ConfigError("export: --to timm needs timm; pip install timm")
        self.call = network(subject)
        self.tensors = arrange(subject, self.call, self.call().state_dict())

    def write(self, file: Path) -> None:
        tensors = {name: t.contiguous() for name, t in self.tensors.items()}
        # without the trunk's config: the names are timm's
        card = {key: value for key, value in self.subject.card().items() if key != "trunk"}
        safetensors.torch.save_file(tensors, file, card)

    def features(self, file: Path, x_NCHW: Tensor) -> Tensor:
        model = self.call().eval()
        model.load_state_dict(safetensors.torch.load_file(file), strict=True)
        return pooled(model(x_NCHW))

    def usage(self, file: Path) -> str:
        keywords = {**self.call.keywords, "checkpoint_path": str(file)}
        call = Call(self.call.function, self.call.positional, keywords)
        return f"import timm\nmodel = {call}.eval()"


def network(subject: Subject) -> Call:
    """The call that makes timm's network.

    Raises:
        ConfigError: it has none that computes the same.
    """
    config = subject.config
    if config["name"] == "timm":
        return _create(config["model"], {}, config["in_channels"])
    if config["name"] not in ("resnet", "regnet", "anynet", "vit"):
        raise refuse("timm", f"it is the trunk {config['name']}")
    inferred = infer(subject.trunk.state_dict())
    if config["name"] == "resnet":
        name, keywords = resnet_name({**config, **inferred}, "timm", "cardinality", "base_width")
    elif config["name"] == "vit":
        name, keywords = _vit_name({**inferred, "heads": subject.trunk.heads})
    else:
        name, keywords = _regnet_name(inferred), {}
    return _create(name, keywords, config["in_channels"])


def _create(name: str, keywords: dict[str, Any], in_channels: int) -> Call:
    channels = {} if in_channels == 3 else {"in_chans": in_channels}
    return Call("timm.create_model", (name,), {"num_classes": 0, **keywords, **channels})


def _regnet_name(config: dict[str, Any]) -> str:
    """y_1_6gf -> regnety_016, x_200mf -> regnetx_002, y_256gf_seer -> regnety_2560."""
    import timm

    preset = str(config.get("preset"))
    if found := re.match(r"([xy])_(\d+)(?:_(\d))?([mg])f", preset):
        kind, whole, tenths, unit = found.groups(default="0")
        hundreds = int(whole) // 100 if unit == "m" else 10 * int(whole) + int(tenths)
        if timm.is_model(name := f"regnet{kind}_{hundreds:03d}"):
            return name
    raise refuse("timm", f"its RegNets are named ones, and this is {config}")


def _vit_name(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name for the patch, or else of the size with the patch as a keyword."""
    import timm

    size, patch_size, side = (config[key] for key in ("size", "patch_size", "image_size"))
    keywords = {} if side == 224 else {"img_size": side}
    if "layer_scale" in config:
        keywords["init_values"] = config["layer_scale"]
    if config["heads"] != attention_heads(size, None):
        keywords["num_heads"] = config["heads"]
    if timm.is_model(name := f"vit_{size}_patch{patch_size}_224"):
        return name, keywords
    patch_of_timm = 14 if size == "huge" else 16
    return f"vit_{size}_patch{patch_of_timm}_224", {"patch_size": patch_size, **keywords}
