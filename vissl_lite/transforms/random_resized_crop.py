"""The crop that all methods on photographs start with."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

from vissl_lite import TRANSFORMS
from vissl_lite.transforms._common import TRIES, check_range, random_sides, resampling


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
    w, h = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


@TRANSFORMS.register("random_resized_crop")
class RandomResizedCrop:
    """Crop of random area and aspect ratio, resized to the size of the view.

    The defaults are those of Inception (Szegedy et al. 2015, arXiv 1409.4842, section 6), SimCLR
    and torchvision. Pixels equal torchvision's on PIL images: crop, then resize with antialiasing.

    Args:
        scale: range of the crop's area as a fraction of the image's.
        ratio: range of width over height; its logarithm is uniform.
        size: pixels per side of the result.
    """

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
        self.resampling = resampling(interpolation)

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        uniforms = rng.random(2 * TRIES + 2).tolist()
        box = crop_box(*image.size, self.scale, self.ratio, uniforms)
        return image.crop(box).resize((self.size, self.size), self.resampling)
