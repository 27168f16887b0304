"""Faster R-CNN and Mask R-CNN of torchvision on a trunk of ours.

Shape suffixes: N images, C channels, H, W rows and columns of an image or map.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from vissl_lite import TRUNKS, ConfigError
from vissl_lite.engine.features import evaluating
from vissl_lite.engine.numerics import Numerics
from vissl_lite.layers.norm import BatchNorm2d, convert_batch_norm
from vissl_lite.parallel.collectives import world_size
from vissl_lite.parallel.shards import whole

if TYPE_CHECKING:
    from vissl_lite.engine.bench import Bench

LEVELS = 4
PROBE = 224  # pixels, the side of the images that models of a fixed size mostly take
ANCHOR = 8  # side of an anchor over the stride of its level: 32 pixels at stride 4
RATIOS = (0.5, 1.0, 2.0)
ROI = 7  # cells per side of what the box head sees

BatchNormIs = Literal["synchronised", "frozen"]


class Pyramid(nn.Module):
    """Trunk and feature pyramid: four maps of the trunk, finest first, become five of equal width.

    Lin et al. 2017, arXiv 1612.03144.

    Args:
        out_channels: of the five maps.
        layers: of the trunk, finest first.
        batch_norm: "synchronised": statistics of the whole batch, also in the pyramid; "frozen":
            statistics and affine parameters stay, and the pyramid goes without.
        freeze_until: this layer and all before it stay as they are.
        numerics: precision of the trunk; the pyramid computes in float32.
    """

    def __init__(
        self,
        trunk: nn.Module,
        layers: Sequence[str],
        out_channels: int,
        batch_norm: BatchNormIs,
        freeze_until: str | None,
        numerics: Numerics,
    ):
        super().__init__()
        self.trunk, self.layers, self.numerics = trunk, tuple(layers), numerics
        self.out_channels = out_channels
        widths: Any = trunk.widths
        norm = None if batch_norm == "frozen" else BatchNorm2d
        self.fpn = FeaturePyramidNetwork(
            [widths[layer] for layer in layers], out_channels, LastLevelMaxPool(), norm
        )
        self.still = frozen_modules(trunk, batch_norm, freeze_until)
        for module in self.still:
            for p in module.parameters(recurse=False):
                p.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, BatchNorm2d):
                module.sync = world_size() > 1

    def forward(self, x_NCHW: Tensor) -> dict[str, Tensor]:
        with self.numerics.autocast(x_NCHW.device):
            maps = self.trunk(x_NCHW, self.layers)
        return self.fpn({str(i): maps[layer].float() for i, layer in enumerate(self.layers)})

    def train(self, mode: bool = True) -> Pyramid:
        super().train(mode)
        for module in self.still:
            module.training = False
        return self


@dataclass(frozen=True)
class Architecture:
    """What is built on the trunk; the parameters of the evaluation `detection` of these names."""

    masks: bool
    layers: tuple[str, ...] | None
    channels: int
    hidden: int
    proposals: int
    batch_norm: BatchNormIs
    freeze_until: str | None
    longest: int


def build(bench: Bench, classes: int, of: Architecture, place: str) -> nn.Module:
    """The detector, on the device, its weights besides the trunk's drawn from the global state.

    Args:
        classes: without the background.

    Raises:
        ConfigError: a layer that the trunk does not have, or that is no map, or too few strides.
    """
    trunk = copy_of_trunk(bench)
    stride_of = map_strides(trunk, place)
    layers = chosen_layers(trunk, stride_of, of.layers, place)
    if of.freeze_until is not None and of.freeze_until not in stride_of:
        raise ConfigError(
            f"{place}.freeze_until: {of.freeze_until!r} is no map of the trunk;"
            f" {', '.join(stride_of)}"
        )
    pyramid = Pyramid(trunk, layers, of.channels, of.batch_norm, of.freeze_until, bench.numerics)
    mean, std = ((t.flatten() / 255).tolist() for t in (bench.model.mean, bench.model.std))
    strides = [_power_of_2(stride_of[layer]) for layer in layers]
    network = (MaskRCNN if of.masks else FasterRCNN)(
        pyramid,
        max_size=of.longest,
        image_mean=mean,
        image_std=std,
        size_divisible=max(strides),
        rpn_anchor_generator=AnchorGenerator(
            tuple((ANCHOR * stride,) for stride in [*strides, 2 * strides[-1]]),
            (RATIOS,) * (LEVELS + 1),
        ),
        box_batch_size_per_image=of.proposals,
        **_heads(of, 1 + classes),
    )
    return network.to(bench.device)


def _heads(of: Architecture, classes: int) -> dict[str, Any]:
    """Those of torchvision, of our widths."""
    heads: dict[str, Any] = {
        "box_head": TwoMLPHead(of.channels * ROI**2, of.hidden),
        "box_predictor": FastRCNNPredictor(of.hidden, classes),
    }
    if of.masks:
        heads["mask_head"] = MaskRCNNHeads(of.channels, (of.channels,) * 4, 1)
        heads["mask_predictor"] = MaskRCNNPredictor(of.channels, of.channels, classes)
    return heads


def copy_of_trunk(bench: Bench) -> nn.Module:
    """Trainable, with norms of its own; whole, where that of the model is sharded."""
    trunk: Any = bench.model.trunk
    state = trunk.state_dict()
    if any(isinstance(t, DTensor) for t in state.values()):
        fresh = TRUNKS.build(bench.config.trunk, "trunk")  # pyright: ignore[reportOptionalMemberAccess]
        fresh.load_state_dict({name: whole(t).cpu() for name, t in state.items()})
    else:
        fresh = copy.deepcopy(trunk)
    return convert_batch_norm(fresh).requires_grad_(True)


def map_strides(trunk: nn.Module, place: str) -> dict[str, int]:
    """Pixels per cell of every layer that is a map, in network order; computed without data.

    Raises:
        ConfigError: the trunk only takes images of a size of its own.
    """
    try:
        maps = _maps(trunk, tuple(trunk.widths))  # pyright: ignore[reportArgumentType]
    except AssertionError as error:
        raise ConfigError(f"{place}: the trunk does not take images of any size: {error}") from None
    return {name: round(PROBE / y.shape[2]) for name, y in maps.items()}


@torch.no_grad()
def _maps(trunk: nn.Module, layers: tuple[str, ...]) -> dict[str, Tensor]:
    """Outputs on the meta device that are maps of more than one cell."""
    state = {name: t.to("meta") for name, t in trunk.state_dict(keep_vars=True).items()}
    x_NCHW = torch.empty(1, 3, PROBE, PROBE, device="meta")
    with evaluating(trunk):
        outputs = torch.func.functional_call(trunk, state, (x_NCHW, layers))
    return {name: y for name, y in outputs.items() if y.ndim == 4 and y.shape[2] > 1}


def chosen_layers(
    trunk: nn.Module, stride_of: dict[str, int], layers: Sequence[str] | None, place: str
) -> list[str]:
    """Four layers whose strides double, finest first."""
    last = {_power_of_2(stride): layer for layer, stride in stride_of.items()}
    default = [last[stride] for stride in sorted(last)[-LEVELS:]]
    if len(default) < LEVELS and layers is None:
        raise ConfigError(
            f"{place}: the pyramid needs maps at four strides; trunk {type(trunk).__name__} gives"
            f" {len(default)}; take a convolutional trunk, such as resnet or regnet"
        )
    layers = list(layers or default)
    if wrong := [layer for layer in layers if layer not in stride_of]:
        raise ConfigError(
            f"{place}.layers: {wrong[0]!r} is no map of the trunk; {', '.join(stride_of)}"
        )
    strides = [_power_of_2(stride_of[layer]) for layer in layers]
    if len(layers) != LEVELS or any(b != 2 * a for a, b in itertools.pairwise(strides)):
        raise ConfigError(
            f"{place}.layers: {', '.join(layers)} have strides {strides}; needs four, each twice"
            " the one before"
        )
    return layers


def _power_of_2(stride: int) -> int:
    """Convolutions without padding make maps a little smaller than their stride says."""
    return 2 ** round(math.log2(stride))


def frozen_modules(
    trunk: nn.Module, batch_norm: BatchNormIs, freeze_until: str | None
) -> list[nn.Module]:
    """The modules of the trunk whose own parameters and statistics stay as they are."""
    frozen = batch_norm == "frozen"
    before = set() if freeze_until is None else used_until(trunk, freeze_until)
    return [
        module
        for module in trunk.modules()
        if (frozen and isinstance(module, _BatchNorm))
        or any(p in before for p in module.parameters(recurse=False))
    ]


def used_until(trunk: nn.Module, layer: str) -> set[nn.Parameter]:
    """Parameters that the output of a layer depends on: those that it gives a gradient."""
    named = dict(trunk.named_parameters())
    meta = {name: torch.empty_like(p, device="meta").requires_grad_() for name, p in named.items()}
    buffers = {name: t.to("meta") for name, t in trunk.named_buffers()}
    x_NCHW = torch.empty(1, 3, PROBE, PROBE, device="meta")
    with evaluating(trunk), torch.enable_grad():
        output = torch.func.functional_call(trunk, {**meta, **buffers}, (x_NCHW, (layer,)))[layer]
        grads = torch.autograd.grad(output.sum(), list(meta.values()), allow_unused=True)
    return {p for p, grad in zip(named.values(), grads) if grad is not None}
