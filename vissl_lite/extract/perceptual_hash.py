"""A perceptual hash as a model without weights. Legend: N images, H, W their sides, K low waves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NAME = "perceptual_hash"
SIDE, WAVES = 32, 8
IMAGE = 64  # side of the square that is averaged
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class PerceptualHash(nn.Module):
    """63 signs of the lowest waves of an image: equal for copies, scaled or compressed.

        g = grey central square of 32 x 32 pixels, averaged over areas;   c = low 8 x 8 of DCT-II(g)
        h = sign(c - median(c)), without the constant wave, as -1 and 1

    So the cosine of two hashes is 1 - 2 d / 63 with their Hamming distance d (Zauner 2010,
    Implementation and benchmarking of perceptual image hash functions, section 3.2.1; there with a
    mean filter and 64 bits). A trunk to all that extracts features: layer "hash", [N, 63].
    """

    waves_KS: Tensor
    luma_C: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.widths = {"hash": WAVES * WAVES - 1}
        self.register_buffer("waves_KS", _waves(), persistent=False)
        self.register_buffer("luma_C", torch.tensor(LUMA), persistent=False)

    def forward(self, x_NCHW: Tensor, layers: Sequence[str] = ("hash",)) -> dict[str, Tensor]:
        grey_NHW = torch.einsum("nchw,c->nhw", x_NCHW.float(), self.luma_C)
        small_NSS = F.adaptive_avg_pool2d(grey_NHW[:, None], SIDE)[:, 0]
        low_NKK = self.waves_KS @ small_NSS @ self.waves_KS.T
        c_NK = low_NKK.flatten(1)[:, 1:]
        h_NK = torch.where(c_NK > c_NK.median(dim=1, keepdim=True).values, 1.0, -1.0)
        return dict.fromkeys(layers, h_NK)

    def units(self) -> list[nn.Module]:
        return [self]


def _waves() -> Tensor:
    """The first rows of the DCT-II of 32 points, up to their scale."""
    place = math.pi / SIDE * (torch.arange(SIDE, dtype=torch.float64) + 0.5)
    return torch.cos(torch.arange(WAVES)[:, None] * place).float()
