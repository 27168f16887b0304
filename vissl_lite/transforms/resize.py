"""Resizing to a fixed short side, the first half of the usual view for evaluation."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image
from torch import Tensor

from vissl_lite import TRANSFORMS
from vissl_lite.data.resize import resize
from vissl_lite.data.transform import Transform
from vissl_lite.transforms import _resample
from vissl_lite.transforms._common import check_at_least, check_range, resampling, vector


@TRANSFORMS.register("resize")
class Resize(Transform):
    """Resizes so that the short side has a given length; the aspect ratio stays.

    Args:
        short_side: pixels; by default size / crop_fraction, rounded down: 256 for views of 224.
        crop_fraction: what a `center_crop` after it keeps of the short side; 0.875 as in AlexNet's
            256 -> 224 (Krizhevsky et al. 2012).
        size: pixels per side of the view.

    Attributes:
        linear: leave out antialiasing in `on_array` (`data.resize: linear`).
    """

    shape = "free"
    linear = False

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
        self.interpolation: Literal["bilinear", "bicubic"] = interpolation

    def parameters(self, u_ND: np.ndarray, width: int, height: int) -> np.ndarray:
        """[width, height]"""
        return np.tile(np.array(self._sides(width, height), float), (len(u_ND), 1))

    def on_image(self, image: Image.Image, p: Sequence[float]) -> Image.Image:
        return image.resize((int(p[0]), int(p[1])), resampling(self.interpolation))

    def on_array(
        self, pixels: np.ndarray, p: Sequence[float], out: np.ndarray | None = None
    ) -> np.ndarray:
        return resize(pixels, (int(p[1]), int(p[0])), self.interpolation, out, self.linear)

    def on_batch(self, x_NCHW: Tensor, p_NP: Tensor) -> Tensor:
        height, width = x_NCHW.shape[2:]
        new_width, new_height = self._sides(width, height)
        whole_14 = vector([0, 0, width, height], x_NCHW)[None]
        return _resample.crop_resize(x_NCHW, whole_14, (new_height, new_width), self.interpolation)

    def _sides(self, width: int, height: int) -> tuple[int, int]:
        short = min(width, height)
        return self.short_side * width // short, self.short_side * height // short
