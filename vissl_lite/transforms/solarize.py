"""Bright colours inverted."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from vissl_lite import TRANSFORMS
from vissl_lite.data import colours
from vissl_lite.transforms import _pixels
from vissl_lite.transforms._common import check_at_least, check_probability

NEVER = 256  # a threshold that no value reaches


@TRANSFORMS.register("solarize")
class Solarize(_pixels.PixelTransform):
    """Inverts all values from a threshold upward, with probability p.

        x -> x if x < threshold else 255 - x

    Args:
        p: 0.2 for the second view of BYOL (Grill et al. 2020, arXiv 2006.07733, appendix B).
        threshold: 128, half of the range, in BYOL and DINO; fixed, whereas VISSL drew it at random.
    """

    draws = 1
    neutral = (NEVER,)

    def __init__(self, p: float = 0.2, threshold: int = 128):
        check_probability(p, "solarize.p")
        check_at_least(threshold, "solarize.threshold", high=NEVER)
        self.p, self.threshold = p, threshold

    def parameters(self, u_ND: np.ndarray, width: int, height: int) -> np.ndarray:
        """[threshold]"""
        return np.where(u_ND < self.p, float(self.threshold), NEVER)

    def on_image(self, image: Image.Image, p: Sequence[float]) -> Image.Image:
        return image if p[0] == NEVER else ImageOps.solarize(image, int(p[0]))

    def by_opencv(
        self, pixels: np.ndarray, p: Sequence[float], out: np.ndarray | None
    ) -> np.ndarray:
        x = _pixels.VALUES
        return _pixels.look_up(pixels, np.where(x < p[0], x, 255 - x), out)

    def on_batch(self, x_NCHW: Tensor, p_NP: Tensor) -> Tensor:
        return colours.solarize(x_NCHW, p_NP[:, 0])
