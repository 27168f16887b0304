"""The crop that all methods on photographs start with."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image
from torch import Tensor

from vissl_lite import TRANSFORMS
from vissl_lite.data.resize import crop_resize
from vissl_lite.data.transform import Transform, placed
from vissl_lite.transforms import _resample
from vissl_lite.transforms._common import (
    TRIES,
    check_range,
    fitting_sides,
    random_sides,
    resampling,
)

MANY = 32  # rows from which on `crop_boxes` is faster than `crop_box` for each


def crop_box(
    width: int,
    height: int,
    scale: Sequence[float],
    ratio: Sequence[float],
    uniforms: Sequence[float],
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a random crop, as in torchvision's RandomResizedCrop.

        10 times: draw an area and an aspect ratio; if the box fits, place it anywhere in the image
        else: the largest central box whose ratio is allowed

    Args:
        uniforms: 22 numbers in [0, 1), two for each try and two for the place.
    """
    for w, h in random_sides(uniforms[: 2 * TRIES], width * height, scale, ratio):
        if 0 < w <= width and 0 < h <= height:
            top = int(uniforms[-2] * (height - h + 1))
            left = int(uniforms[-1] * (width - w + 1))
            return left, top, left + w, top + h
    return _central_box(width, height, ratio)


def crop_boxes(
    width: int, height: int, scale: Sequence[float], ratio: Sequence[float], u_ND: np.ndarray
) -> np.ndarray:
    """[N, 4]: `crop_box` for each row of uniforms, bit for bit."""
    w_N, h_N = fitting_sides(u_ND[:, : 2 * TRIES], width * height, scale, ratio, (width, height)).T
    top_N = np.floor(u_ND[:, -2] * (height - h_N + 1))
    left_N = np.floor(u_ND[:, -1] * (width - w_N + 1))
    box_N4 = np.stack([left_N, top_N, left_N + w_N, top_N + h_N], 1)
    box_N4[w_N == 0] = _central_box(width, height, ratio)
    return box_N4


def _central_box(width: int, height: int, ratio: Sequence[float]) -> tuple[int, int, int, int]:
    w, h = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


@TRANSFORMS.register("random_resized_crop")
class RandomResizedCrop(Transform):
    """Crop of random area and aspect ratio, resized to the size of the view.

    The defaults are those of Inception (Szegedy et al. 2015, arXiv 1409.4842, section 6), SimCLR
    and torchvision. Pixels equal torchvision's on PIL images: crop, then resize with antialiasing.

    Args:
        scale: range of the crop's area as a fraction of the image's.
        ratio: range of width over height; its logarithm is uniform.
        size: pixels per side of the result.

    Attributes:
        linear: leave out antialiasing in `on_array` (`data.resize: linear`).
    """

    draws = 2 * TRIES + 2
    shape = "view"
    cuts = True
    linear = False

    def __init__(
        self,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: Literal["bilinear", "bicubic"] = "bilinear",
        *,
        size: int,
    ):
        check_range(scale, "random_resized_crop.scale", high=1.0)
        check_range(ratio, "random_resized_crop.ratio")
        self.scale, self.ratio, self.size = scale, ratio, size
        self.interpolation: Literal["bilinear", "bicubic"] = interpolation

    def parameters(self, u_ND: np.ndarray, width: int, height: int) -> np.ndarray:
        """[left, top, right, bottom]"""
        if len(u_ND) >= MANY:
            return crop_boxes(width, height, self.scale, self.ratio, u_ND)
        boxes = [crop_box(width, height, self.scale, self.ratio, u) for u in u_ND.tolist()]
        return np.array(boxes, float).reshape(-1, 4)

    def on_image(self, image: Image.Image, p: Sequence[float]) -> Image.Image:
        left, top, right, bottom = map(int, p)
        crop = image.crop((left, top, right, bottom))
        return crop.resize((self.size, self.size), resampling(self.interpolation))

    def on_array(
        self, pixels: np.ndarray, p: Sequence[float], out: np.ndarray | None = None
    ) -> np.ndarray:
        box, size = [round(edge) for edge in p], (self.size, self.size)
        # between pixels, of a photograph that was shrunk while it was decoded
        if box != p and not self.linear:
            kernel, (left, top, right, bottom) = resampling(self.interpolation), p
            crop = Image.fromarray(pixels).resize(size, kernel, (left, top, right, bottom))
            return placed(np.asarray(crop), out)
        return crop_resize(pixels, box, size, self.interpolation, out, self.linear)

    def on_batch(self, x_NCHW: Tensor, p_NP: Tensor) -> Tensor:
        size = (self.size, self.size)
        return _resample.crop_resize(x_NCHW, p_NP, size, self.interpolation)
