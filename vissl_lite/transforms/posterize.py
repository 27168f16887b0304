"""Fewer shades of each colour."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from vissl_lite import TRANSFORMS
from vissl_lite.data import colours
from vissl_lite.transforms import _pixels
from vissl_lite.transforms._common import check_at_least, check_probability

ALL = 8  # bits of a value


@TRANSFORMS.register("posterize")
class Posterize(_pixels.PixelTransform):
    """Keeps the highest bits of every value and clears the others, with probability p.

        x -> floor(x / 2^(8 - bits)) 2^(8 - bits)

    An operation of AutoAugment (Cubuk et al. 2018, arXiv 1805.09501, appendix A).

    Args:
        p: 0.5, as of torchvision's RandomPosterize.
        bits: 1 to 8; 4 is the strongest that AutoAugment takes.
    """

    draws = 1
    neutral = (ALL,)

    def __init__(self, p: float = 0.5, bits: int = 4):
        check_probability(p, "posterize.p")
        check_at_least(bits, "posterize.bits", 1, ALL)
        self.p, self.bits = p, bits

    def parameters(self, u_ND: np.ndarray, width: int, height: int) -> np.ndarray:
        """[bits]"""
        return np.where(u_ND < self.p, float(self.bits), ALL)

    def on_image(self, image: Image.Image, p: Sequence[float]) -> Image.Image:
        return image if p[0] == ALL else ImageOps.posterize(image, int(p[0]))

    def by_opencv(
        self, pixels: np.ndarray, p: Sequence[float], out: np.ndarray | None
    ) -> np.ndarray:
        step = 2 ** (ALL - int(p[0]))
        return _pixels.look_up(pixels, _pixels.VALUES // step * step, out)

    def on_batch(self, x_NCHW: Tensor, p_NP: Tensor) -> Tensor:
        return colours.posterize(x_NCHW, p_NP[:, 0])
