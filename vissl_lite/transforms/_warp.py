"""Affine maps of an image onto itself, by Pillow's rules.

Shape suffixes: N images, C channels, H, W of an image, K = 16 pixels around a point.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vissl_lite.data.transform import Transform
from vissl_lite.transforms._common import Interpolation, resampling
from vissl_lite.transforms._resample import cubic

SLACK = 1 / 64  # Pillow cuts off decimals; float32 must not lose a whole unit to its own rounding


class Warp(Transform):
    """A transform whose parameters are the coefficients (a, b, c, d, e, f) of the inverse map.

        result(x, y) = image(a x + b y + c, d x + e y + f),  the fill outside of the image

    where pixel i spans i..i + 1 and its centre is meant.
    """

    def __init__(self, interpolation: Interpolation, fill: int):
        self.interpolation: Interpolation = interpolation
        self.fill = fill

    def on_image(self, image: Image.Image, p: Sequence[float]) -> Image.Image:
        return image.transform(
            image.size,
            Image.Transform.AFFINE,
            p,
            resampling(self.interpolation),
            fillcolor=(self.fill,) * 3,
        )

    def on_batch(self, x_NCHW: Tensor, p_N6: Tensor) -> Tensor:
        return warp(x_NCHW, p_N6, self.interpolation, self.fill)


def warp(x_NCHW: Tensor, p_N6: Tensor, interpolation: Interpolation, fill: float) -> Tensor:
    """`Warp` for a batch; values are cut off to whole numbers, as Pillow does."""
    height, width = x_NCHW.shape[2:]
    x_W = torch.arange(width, device=x_NCHW.device, dtype=x_NCHW.dtype) + 0.5
    y_H1 = torch.arange(height, device=x_NCHW.device, dtype=x_NCHW.dtype)[:, None] + 0.5
    a, b, c, d, e, f = p_N6[:, :, None, None].unbind(1)
    u_NHW, v_NHW = a * x_W + b * y_H1 + c, d * x_W + e * y_H1 + f
    if interpolation == "bicubic":
        y_NCHW = _bicubic(x_NCHW, u_NHW, v_NHW).clamp(0, 255)
    else:
        grid_NHW2 = torch.stack([2 * u_NHW / width - 1, 2 * v_NHW / height - 1], -1)
        y_NCHW = F.grid_sample(x_NCHW, grid_NHW2, interpolation, "border", align_corners=False)
    inside_NHW = (u_NHW >= 0) & (u_NHW < width) & (v_NHW >= 0) & (v_NHW < height)
    return torch.where(inside_NHW[:, None], (y_NCHW + SLACK).floor_(), fill)


def _bicubic(x_NCHW: Tensor, u_NHW: Tensor, v_NHW: Tensor) -> Tensor:
    """Cubic convolution with a = -1, Pillow's for maps; torch's grid_sample has -3/4."""
    height, width = x_NCHW.shape[2:]
    taps_4 = torch.arange(-1, 3, device=x_NCHW.device)
    j_NHW4 = (u_NHW - 0.5).floor()[..., None] + taps_4
    i_NHW4 = (v_NHW - 0.5).floor()[..., None] + taps_4
    across_NHW4 = cubic(u_NHW[..., None] - 0.5 - j_NHW4, a=-1.0)
    down_NHW4 = cubic(v_NHW[..., None] - 0.5 - i_NHW4, a=-1.0)
    place_NHWK = (
        i_NHW4.clamp(0, height - 1)[..., :, None] * width + j_NHW4.clamp(0, width - 1)[..., None, :]
    ).flatten(3)
    weight_NHWK = (down_NHW4[..., :, None] * across_NHW4[..., None, :]).flatten(3)
    index_NCM = place_NHWK.long().flatten(1)[:, None].expand(-1, x_NCHW.shape[1], -1)
    found_NCHWK = x_NCHW.flatten(2).gather(2, index_NCM).unflatten(2, weight_NHWK.shape[1:])
    return torch.einsum("nchwk,nhwk->nchw", found_NCHWK, weight_NHWK)
