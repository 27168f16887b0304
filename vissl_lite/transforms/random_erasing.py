"""A hole in the image."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vissl_lite import TRANSFORMS
from vissl_lite.data.transform import Transform, placed
from vissl_lite.transforms._common import (
    TRIES,
    check_probability,
    check_range,
    fitting_sides,
    vector,
)

SEEDS = 2**24  # so many whole numbers float32 can tell apart
MASK = 2**32 - 1


@TRANSFORMS.register("random_erasing")
class RandomErasing(Transform):
    """Paints over a random rectangle with probability p.

    From Zhong et al. 2017 (arXiv 1708.04896); the defaults and the search for a rectangle are
    torchvision's: up to 10 tries, and the image as it is if none fits.

    Args:
        p: the paper's is 0.5, timm's and DeiT's 0.25.
        scale: range of the rectangle's area as a fraction of the image's.
        ratio: range of height over width; its logarithm is uniform.
        fill: RGB, by default ImageNet's mean, which normalisation makes zero; "noise" draws every
            value uniformly from 0 to 255.
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        fill: tuple[int, int, int] | Literal["noise"] = (124, 116, 104),
    ):
        check_probability(p, "random_erasing.p")
        check_range(scale, "random_erasing.scale", high=1.0)
        check_range(ratio, "random_erasing.ratio")
        self.p, self.scale, self.ratio = p, scale, ratio
        self.fill: tuple[int, int, int] | Literal["noise"] = fill
        self.draws = 2 * TRIES + 3 + (fill == "noise")

    def parameters(self, u_ND: np.ndarray, width: int, height: int) -> np.ndarray:
        """[left, top, right, bottom, seed of the noise]; an empty box leaves the image alone."""
        u_apply, u_top, u_left, tries_NT = *u_ND[:, :3].T, u_ND[:, 3 : 2 * TRIES + 3]
        limits = (height - 1, width - 1)
        sides_N2 = fitting_sides(tries_NT, width * height, self.scale, self.ratio, limits)
        h_N, w_N = np.where(u_apply[:, None] < self.p, sides_N2, 0).T
        top_N = np.floor(u_top * (height - h_N + 1))
        left_N = np.floor(u_left * (width - w_N + 1))
        seed_N = np.floor(u_ND[:, -1] * SEEDS)
        return np.stack([left_N, top_N, left_N + w_N, top_N + h_N, seed_N], 1)

    def on_image(self, image: Image.Image, p: Sequence[float]) -> Image.Image:
        return Image.fromarray(self.on_array(np.asarray(image), p))

    def on_array(
        self, pixels: np.ndarray, p: Sequence[float], out: np.ndarray | None = None
    ) -> np.ndarray:
        left, top, right, bottom, seed = map(int, p)
        if left == right:
            return placed(pixels, out)
        out = placed(pixels, np.empty_like(pixels) if out is None else out)
        inside = slice(top, bottom), slice(left, right)
        if self.fill == "noise":
            out[inside] = noise(seed, np.arange(pixels.size).reshape(pixels.shape)[inside])
        else:
            out[inside] = self.fill
        return out

    def on_batch(self, x_NCHW: Tensor, p_NP: Tensor) -> Tensor:
        height, width = x_NCHW.shape[2:]
        left, top, right, bottom, seed_N111 = p_NP[:, :, None, None, None].unbind(1)
        j_W = torch.arange(width, device=x_NCHW.device)
        i_H1 = torch.arange(height, device=x_NCHW.device)[:, None]
        inside_N1HW = (left <= j_W) & (j_W < right) & (top <= i_H1) & (i_H1 < bottom)
        if self.fill == "noise":
            place_HWC = torch.arange(x_NCHW[0].numel(), device=x_NCHW.device)
            place_CHW = place_HWC.view(height, width, -1).permute(2, 0, 1)
            paint = noise(seed_N111.long(), place_CHW).to(x_NCHW.dtype)
        else:
            paint = vector(self.fill, x_NCHW)[:, None, None]
        return torch.where(inside_N1HW, paint, x_NCHW)


def noise(seed: Any, place: Any) -> Any:
    """A value from 0 to 255 for each place of an image: a hash, the same on every device.

    Args:
        seed, place: integers; numbers, arrays or tensors of them.
    """
    return _mix(_mix(seed) + place) & 255


def _mix(x: Any) -> Any:
    """32 bits, each of which depends on all of x (Appleby's MurmurHash3, its last step)."""
    x = (x ^ (x >> 16)) * 0x85EBCA6B & MASK
    x = (x ^ (x >> 13)) * 0xC2B2AE35 & MASK
    return x ^ (x >> 16)
