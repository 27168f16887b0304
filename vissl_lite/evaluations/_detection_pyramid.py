"""The backbone of a detector: a trunk, and the five maps of equal width made of its own.

Shape suffixes: N images, C channels, H, W rows and columns of an image or map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import Conv2dNormActivation
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from vissl_lite.engine.features import evaluating
from vissl_lite.engine.numerics import Numerics
from vissl_lite.layers.norm import BatchNorm2d
from vissl_lite.parallel.collectives import world_size

PROBE = 224  # pixels, the side of the images that models of a fixed size mostly take

BatchNormIs = Literal["synchronised", "frozen"]
Norm2d = partial(LayerNorm2d, eps=1e-6)


class Pyramid(nn.Module):
    """Trunk and feature pyramid: maps of the trunk become five of equal width, finest first.

    Of four maps the pyramid of Lin et al. 2017, arXiv 1612.03144; of one `SimplePyramid`.

    Args:
        layers: of the trunk, four with the finest first, or one.
        out_channels: of the five maps.
        batch_norm: "synchronised": statistics of the whole batch, also in the pyramid of four maps;
            "frozen": statistics and affine parameters stay, and that pyramid goes without.
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
        self.fpn = _pyramid([widths[layer] for layer in layers], out_channels, batch_norm)
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


class SimplePyramid(nn.Module):
    """One map x becomes five: with 4, 2, 1, 1/2 and 1/4 times its rows and columns.

        y_4 = up(gelu(norm(up(x))))     y_2 = up(x)     y_1 = x     y_1/2 = max over 2x2 of x
        z_i = norm(conv3x3(norm(conv1x1(y_i))))         z_1/4 = every other cell of z_1/2

    up: transposed convolution 2x2 of stride 2 to half the channels; norm: LayerNorm over the
    channels of each cell; conv1x1 and conv3x3 have no bias. Li et al. 2022, arXiv 2203.16527,
    section 3; channels of up, biases and epsilon are those of its code in Detectron2.

    Args:
        in_channels: of x, a multiple of 4.
        out_channels: of the five maps.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        whole, half, quarter = in_channels, in_channels // 2, in_channels // 4
        scaled: list[tuple[int, list[nn.Module]]] = [
            (quarter, [_up(whole, half), Norm2d(half), nn.GELU(), _up(half, quarter)]),
            (half, [_up(whole, half)]),
            (whole, []),
            (whole, [nn.MaxPool2d(2)]),
        ]
        self.levels = nn.ModuleList(
            nn.Sequential(
                *layers, _conv(width, out_channels, 1), _conv(out_channels, out_channels, 3)
            )
            for width, layers in scaled
        )
        self.coarsest = LastLevelMaxPool()

    def forward(self, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of a dict with one map [N, C, H, W], H and W even: "0", ..., "3" and "pool"."""
        (x_NCHW,) = maps.values()
        names = [str(i) for i in range(len(self.levels))]
        found, names = self.coarsest([level(x_NCHW) for level in self.levels], [x_NCHW], names)
        return dict(zip(names, found))


def _up(in_channels: int, out_channels: int) -> nn.Module:
    return nn.ConvTranspose2d(in_channels, out_channels, 2, 2)


def _conv(in_channels: int, out_channels: int, size: int) -> nn.Module:
    return Conv2dNormActivation(
        in_channels, out_channels, size, norm_layer=Norm2d, activation_layer=None
    )


def _pyramid(widths: list[int], out_channels: int, batch_norm: BatchNormIs) -> nn.Module:
    if len(widths) == 1:
        return SimplePyramid(widths[0], out_channels)
    norm = None if batch_norm == "frozen" else BatchNorm2d
    return FeaturePyramidNetwork(widths, out_channels, LastLevelMaxPool(), norm)


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
    x_NCHW = probe_images(trunk)
    with evaluating(trunk), torch.enable_grad():
        output = torch.func.functional_call(trunk, {**meta, **buffers}, (x_NCHW, (layer,)))[layer]
        grads = torch.autograd.grad(output.sum(), list(meta.values()), allow_unused=True)
    return {p for p, grad in zip(named.values(), grads) if grad is not None}


def probe_images(trunk: nn.Module) -> Tensor:
    """[1, 3, S, 2 S] without data, of whole patches: only what takes any size takes them."""
    side = math.lcm(PROBE, getattr(trunk, "patch_size", 1))
    return torch.empty(1, 3, side, 2 * side, device="meta")
