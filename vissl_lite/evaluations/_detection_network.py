"""Faster R-CNN and Mask R-CNN of torchvision on a trunk of ours.

Shape suffixes: N images, C channels, H, W rows and columns of an image or map.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops.poolers import LevelMapper, MultiScaleRoIAlign

from vissl_lite import TRUNKS, ConfigError
from vissl_lite.evaluations._detection_pyramid import BatchNormIs, Pyramid, probe_images
from vissl_lite.layers.norm import convert_batch_norm
from vissl_lite.parallel.shards import whole

if TYPE_CHECKING:
    from vissl_lite.engine.bench import Bench

LEVELS = 4  # that regions are cut out of; a fifth has anchors only
ANCHOR = 8  # side of an anchor over the stride of its level: 32 pixels at stride 4
RATIOS = (0.5, 1.0, 2.0)
ROI, MASK_ROI = 7, 14  # cells per side of what the heads see
REGION = 14  # cells per side, and up to twice that, on its level: 224 pixels at stride 16


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
        ConfigError: a layer that the trunk does not have, or that is no map, or maps neither at
            four strides nor all at one.
    """
    trunk = copy_of_trunk(bench)
    layers, strides = fitting_levels(trunk, of, place)
    pyramid = Pyramid(trunk, layers, of.channels, of.batch_norm, of.freeze_until, bench.numerics)
    bench.note(
        f"detection: {'simple ' if len(layers) == 1 else ''}feature pyramid on"
        f" {', '.join(layers)}; strides {', '.join(f'{s:g}' for s in strides)}"
    )
    mean, std = ((t.flatten() / 255).tolist() for t in (bench.model.mean, bench.model.std))
    network = (MaskRCNN if of.masks else FasterRCNN)(
        pyramid,
        max_size=of.longest,
        image_mean=mean,
        image_std=std,
        size_divisible=int(strides[LEVELS - 1]),
        rpn_anchor_generator=Anchors(strides),
        box_batch_size_per_image=of.proposals,
        box_roi_pool=roi_pool(ROI, strides[:LEVELS]),
        **_heads(of, 1 + classes, strides[:LEVELS]),
    )
    return network.to(bench.device)


def _heads(of: Architecture, classes: int, strides: list[float]) -> dict[str, Any]:
    """Those of torchvision, of our widths."""
    heads: dict[str, Any] = {
        "box_head": TwoMLPHead(of.channels * ROI**2, of.hidden),
        "box_predictor": FastRCNNPredictor(of.hidden, classes),
    }
    if of.masks:
        heads["mask_roi_pool"] = roi_pool(MASK_ROI, strides)
        heads["mask_head"] = MaskRCNNHeads(of.channels, (of.channels,) * 4, 1)
        heads["mask_predictor"] = MaskRCNNPredictor(of.channels, of.channels, classes)
    return heads


class Anchors(AnchorGenerator):
    """Three shapes per cell of every level, at its stride in pixels.

    torchvision would divide the side of the image by that of the map and drop the remainder, which
    gives 3 where the stride is 3.5.
    """

    def __init__(self, strides: list[float]):
        super().__init__(tuple((ANCHOR * s,) for s in strides), (RATIOS,) * len(strides))
        self.strides = strides

    def grid_anchors(
        self, grid_sizes: list[list[int]], strides: list[list[Tensor]]
    ) -> list[Tensor]:
        given = [
            [t.new_full((), s, dtype=torch.float32) for t in ts]
            for ts, s in zip(strides, self.strides)
        ]
        return super().grid_anchors(grid_sizes, given)


def roi_pool(cells: int, strides: list[float]) -> nn.Module:
    """RoIAlign on the level where a region has `REGION` cells a side, or up to twice as many.

    Lin et al. 2017, equation 1. torchvision would guess the strides from the sides of the first
    batch, as powers of 2.
    """
    pool: Any = MultiScaleRoIAlign([str(i) for i in range(len(strides))], cells, sampling_ratio=2)
    pool.scales = [1 / stride for stride in strides]
    finest: Any = REGION * strides[0]
    pool.map_levels = LevelMapper(0, len(strides) - 1, canonical_scale=finest, canonical_level=0)
    return pool


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


def outline_of_trunk(bench: Bench) -> nn.Module:
    """The trunk's shapes on the meta device, whole, where that of the model is sharded."""
    trunk = bench.model.trunk
    if not any(isinstance(p, DTensor) for p in trunk.parameters()):
        return _outline(trunk)
    with torch.device("meta"):
        return TRUNKS.build(bench.config.trunk, "trunk")  # pyright: ignore[reportOptionalMemberAccess]


def _outline(trunk: nn.Module) -> nn.Module:
    """A copy on the meta device, which takes no memory; compiled units are not in the copy."""
    parameters = {id(p): nn.Parameter(_shape(p), p.requires_grad) for p in trunk.parameters()}
    return copy.deepcopy(trunk, {**parameters, **{id(t): _shape(t) for t in trunk.buffers()}})


def _shape(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")


def map_strides(trunk: nn.Module, place: str) -> dict[str, int]:
    """Pixels per cell of every layer that is a map, in network order; computed without data.

    Raises:
        ConfigError: the trunk only takes images of a size of its own, or without three channels.
    """
    outline, x_NCHW = _outline(trunk).eval(), probe_images(trunk)
    try:
        maps = _maps(outline, x_NCHW)
    except (AssertionError, RuntimeError) as error:
        raise ConfigError(f"{place}: the trunk {_refused(outline, x_NCHW, error)}") from None
    return {name: round(x_NCHW.shape[2] / y.shape[2]) for name, y in maps.items()}


@torch.no_grad()
def _maps(outline: nn.Module, x_NCHW: Tensor) -> dict[str, Tensor]:
    """Outputs on the meta device that are maps: twice as wide as high, as the images."""
    outputs = outline(x_NCHW, tuple(outline.widths))  # pyright: ignore[reportArgumentType]
    return {name: y for name, y in outputs.items() if y.ndim == 4 and y.shape[3] > y.shape[2]}


def _refused(outline: nn.Module, x_NCHW: Tensor, error: Exception) -> str:
    """Why a trunk does not take images of three channels, twice as wide as high."""
    first = next((m for m in outline.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and first.in_channels != x_NCHW.shape[1]:
        with suppress(AssertionError, RuntimeError):
            _maps(outline, x_NCHW[:, :1].expand(-1, first.in_channels, -1, -1))
            return (
                f"takes images of {first.in_channels} channels, and these have {x_NCHW.shape[1]};"
                " take one with in_channels=3"
            )
    return (
        f"does not take images of any size ({shorten(str(error), 80)}); take one that does, such"
        " as vit or resnet"
    )


def fitting_levels(trunk: nn.Module, of: Architecture, place: str) -> tuple[list[str], list[float]]:
    """Layers and strides as `chosen_levels`, of the trunk or its outline.

    Raises:
        ConfigError: as `map_strides` and `chosen_levels`, or `freeze_until` is no map.
    """
    stride_of = map_strides(trunk, place)
    chosen = chosen_levels(trunk, stride_of, of.layers, place)
    if of.freeze_until is not None:
        _check_maps(stride_of, [of.freeze_until], f"{place}.freeze_until")
    return chosen


def chosen_levels(
    trunk: nn.Module, stride_of: dict[str, int], layers: Sequence[str] | None, place: str
) -> tuple[list[str], list[float]]:
    """Layers for the pyramid, and the strides of the five maps that it makes of them.

    Four layers whose strides double, finest first; where all maps have one stride, one layer.

    Raises:
        ConfigError: there are no such layers, or those given are others.
    """
    _check_maps(stride_of, layers or (), f"{place}.layers")
    if len(set(stride_of.values())) == 1:
        layers = _one_layer(stride_of, layers, place)
        finest = stride_of[layers[0]] / 4
    else:
        layers = _four_layers(trunk, stride_of, layers, place)
        finest = _power_of_2(stride_of[layers[0]])
    return layers, [finest * 2**level for level in range(LEVELS + 1)]


def _one_layer(stride_of: dict[str, int], layers: Sequence[str] | None, place: str) -> list[str]:
    layers = list(layers or [next(reversed(stride_of))])
    if len(layers) > 1:
        raise ConfigError(
            f"{place}.layers: {', '.join(layers)} have one stride, {stride_of[layers[0]]}; the"
            " simple feature pyramid takes one layer"
        )
    return layers


def _four_layers(
    trunk: nn.Module, stride_of: dict[str, int], layers: Sequence[str] | None, place: str
) -> list[str]:
    last = {_power_of_2(stride): layer for layer, stride in stride_of.items()}
    default = [last[stride] for stride in sorted(last)[-LEVELS:]]
    if len(default) < LEVELS and layers is None:
        raise ConfigError(
            f"{place}: a pyramid needs maps at four strides, or all at one; trunk"
            f" {type(trunk).__name__} gives {len(default)}; take another, such as resnet or vit"
        )
    layers = list(layers or default)
    strides = [_power_of_2(stride_of[layer]) for layer in layers]
    if len(layers) != LEVELS or any(b != 2 * a for a, b in itertools.pairwise(strides)):
        raise ConfigError(
            f"{place}.layers: {', '.join(layers)} have strides {strides}; needs four, each twice"
            " the one before"
        )
    return layers


def _check_maps(stride_of: dict[str, int], layers: Sequence[str], place: str) -> None:
    if wrong := [layer for layer in layers if layer not in stride_of]:
        raise ConfigError(f"{place}: {wrong[0]!r} is no map of the trunk; {', '.join(stride_of)}")


def _power_of_2(stride: int) -> int:
    """Convolutions without padding make maps a little smaller than their stride says."""
    return 2 ** round(math.log2(stride))
