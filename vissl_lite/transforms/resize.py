"""Resizing to a fixed short side, the first half of the usual view for evaluation."""

from typing import Literal

import numpy as np
from PIL import Image

from vissl_lite import TRANSFORMS
from vissl_lite.transforms._common import check_at_least, check_range, resampling


@TRANSFORMS.register("resize")
class Resize:
    """Resizes so that the short side has a given length; the aspect ratio stays.

    Args:
        short_side: pixels; by default size / crop_fraction, rounded down: 256 for views of 224.
        crop_fraction: what a `center_crop` after it keeps of the short side; 0.875 as in AlexNet's
            256 -> 224 (Krizhevsky et al. 2012).
        size: pixels per side of the view.
    """

    def __init__(
        self,
        short_side: int | None = None,
        crop_fraction: float = 0.875,
        interpolation: Literal["bilinear", "bicubic"] = "bilinear",
        *,
        size: int,
    ):
        check_range((crop_fraction, 1.0), "resize.crop_fraction")
        self.short_side = int(size / crop_fraction) if short_side is None else short_side
        check_at_least(self.short_side, "resize.short_side", 1)
        self.resampling = resampling(interpolation)

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        short = min(image.size)
        width, height = (self.short_side * side // short for side in image.size)
        return image.resize((width, height), self.resampling)
