"""From the tensors of a file to those of a trunk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from vissl_lite.errors import ConfigError
from vissl_lite.formats import (
    bare,
    barlow_twins,
    byol,
    dino,
    moco,
    moco_v3,
    regnet,
    resnet,
    swav,
    vicreg,
    vissl,
    vit,
)
from vissl_lite.formats.format import HEADS, UNKNOWN, WRAPPED, Format, Naming, Pixels, Tensors
from vissl_lite.formats.report import Report
from vissl_lite.trunks._trunk import Trunk

# the first that fits is taken: those with a mark of their own before those with a common one
FORMATS = (
    vissl.FORMAT,
    swav.FORMAT,
    moco.FORMAT,
    moco_v3.FORMAT,
    dino.FORMAT,
    byol.FORMAT,
    barlow_twins.FORMAT,
    vicreg.FORMAT,
    bare.FORMAT,
)
NAMINGS = (
    *(resnet.TORCHVISION, resnet.SEQUENTIAL),
    *(regnet.TORCHVISION, regnet.CLASSY, regnet.VISSL, regnet.TIMM),
    *(vit.TIMM, vit.TORCHVISION, vit.SWAG),
)
ADAPTED = "model."  # where an adapter has its library's network
ANYWHERE = {
    r"(?:.*\.)?optimizers?(?:_state_dict)?\.": "optimizer",
    r"(?:amp|scaler|scheduler|lr_scheduler)\.": "training state",
    r"state_dict_ema\.": "moving average",
}


@dataclass
class Weights:
    """The tensors of a trunk under our names, and what is known of it.

    Attributes:
        trunk: name in the trunk's state dict -> tensor.
        heads: the same of `SSLModel.heads`; of our checkpoints and of VISSL's SwAV.
        config: of the trunk, or None where nothing tells it.
        pixels: what it was trained to see.
        report: what became of each tensor of the file.
        unseen: what is known of the config and no shape shows, by the trunk's attributes.
        file: the tensors under the names that they have in the file; {} where it is no foreign one.
        head_names: name of a head's tensor in the file -> in `SSLModel`, where they differ.
    """

    trunk: dict[str, Tensor]
    report: Report
    config: dict[str, Any] | None = None
    pixels: Pixels = UNKNOWN
    heads: dict[str, Tensor] = field(default_factory=dict)
    unseen: dict[str, Any] = field(default_factory=dict)
    file: Tensors = field(default_factory=dict)
    head_names: dict[str, str] = field(default_factory=dict)


def recognise(tensors: Tensors, origin: str) -> Weights | None:
    """The trunk in a foreign file; None where no format fits.

    Args:
        tensors: of the file, nested dicts flattened.
        origin: the file, for the report.
    """
    for form in FORMATS:
        if any(re.match(form.mark, name) for name in tensors):
            for prefix in form.trunk:
                if naming := _naming(prefix, tensors):
                    return _convert(tensors, form, prefix, naming, origin)
    return None


def recognise_library(
    tensors: Tensors, origin: str, library: str, network: nn.Module, heads: Sequence[str]
) -> Weights | None:
    """A network under its library's names, as its adapter takes it; None if none is in the file.

    Args:
        tensors, origin: as for `recognise`.
        network: of the library, without `heads`; tells the names.
    """
    wanted = network.state_dict().keys()
    for prefix in bare.FORMAT.trunk:
        inner = {name: name[m.end() :] for name in tensors if (m := re.match(prefix, name))}
        if wanted & set(inner.values()):
            break
    else:
        return None
    report, trunk = Report(origin, f"a network of {library}"), {}
    removed = tuple(f"{module}." for module in heads)
    for name, tensor in tensors.items():
        own = inner.get(name, name)
        head = "head" if own.startswith(removed) else ""
        reason = head or _reason(name, inner.get(name), bare.FORMAT, prefix)
        if reason and own not in wanted:
            report.ignored.setdefault(reason, []).append(name)
        else:
            trunk[ADAPTED + own] = tensor
            report.renamed[name] = ADAPTED + own
    return Weights(trunk, report)


def recognise_adapted(tensors: Tensors, origin: str, adapter: Trunk) -> Weights | None:
    """As `recognise_library`, of the network in an adapter."""
    network, library = adapter.get_submodule("model"), str(adapter.library)
    return recognise_library(tensors, origin, library, network, adapter.removed)


def infer(trunk: Tensors) -> dict[str, Any]:
    """The config of a trunk of ours from the shapes of its tensors.

    Raises:
        ConfigError: its names are those of no trunk that can be inferred.
    """
    for naming in NAMINGS:
        if not naming.renames and _has(naming, trunk):
            return naming.settings(trunk)
    raise ConfigError(
        "weights: neither the file nor the names of its tensors"
        f" ({', '.join(list(trunk)[:3])}, ...) tell the trunk; known are ResNet, RegNet and ViT in"
        " the formats of docs/weights.md"
    )


def _naming(prefix: str, tensors: Tensors) -> Naming | None:
    inner = {name[m.end() :] for name in tensors if (m := re.match(prefix, name))}
    return next((naming for naming in NAMINGS if _has(naming, inner)), None)


def _has(naming: Naming, names: Any) -> bool:
    return any(re.fullmatch(naming.anchor, name) for name in names)


def _convert(tensors: Tensors, form: Format, prefix: str, naming: Naming, origin: str) -> Weights:
    report = Report(origin, f"{form.name}, {naming.name}")
    trunk: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = re.match(prefix, name)
        inner = name[match.end() :] if match else None
        if reason := _reason(name, inner, form, prefix):
            report.ignored.setdefault(reason, []).append(name)
            continue
        ours = name if inner is None else naming.ours(inner)
        trunk[ours] = naming.change(ours, tensor)
        if ours != name:
            report.renamed[name] = ours
    names = _head_names(report.ignored.get("head", []), form)
    heads = {ours.removeprefix("heads."): tensors[name] for name, ours in names.items()}
    unseen = form.unseen(trunk)
    return Weights(trunk, report, None, form.pixels, heads, unseen, head_names=names)


def _head_names(names: Sequence[str], form: Format) -> dict[str, str]:
    """Name in the file -> in `SSLModel`, of the heads that we have."""
    return {
        name: re.sub(pattern, ours, name, count=1)
        for name in names
        for pattern, ours in form.heads.items()
        if re.match(pattern, name)
    }


def _reason(name: str, inner: str | None, form: Format, prefix: str) -> str:
    """Why a tensor is left out; "" if it is the trunk's, or of unknown use.

    WRAPPED stands before any name; every other prefix before the trunk's alone.
    """
    if inner is not None and re.match(HEADS, inner):
        return "head"
    if inner is not None and prefix != WRAPPED:
        return ""
    rules = {**form.ignored, **ANYWHERE, WRAPPED + HEADS: "head"}
    return next((reason for pattern, reason in rules.items() if re.match(pattern, name)), "")
