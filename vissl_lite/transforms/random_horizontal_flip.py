"""Mirror images."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from vissl_lite import TRANSFORMS
from vissl_lite.data import colours
from vissl_lite.transforms import _pixels
from vissl_lite.transforms._common import check_probability


@TRANSFORMS.register("random_horizontal_flip")
class RandomHorizontalFlip(_pixels.PixelTransform):
    """Swaps left and right with probability p.

    Args:
        p: 0.5 in every method here.
    """

    draws = 1

    def __init__(self, p: float = 0.5):
        check_probability(p, "random_horizontal_flip.p")
        self.p = p

    def parameters(self, u_ND: np.ndarray, width: int, height: int) -> np.ndarray:
        """[on]"""
        return (u_ND < self.p).astype(float)

    def on_image(self, image: Image.Image, p: Sequence[float]) -> Image.Image:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if p[0] else image

    def by_opencv(
        self, pixels: np.ndarray, p: Sequence[float], out: np.ndarray | None
    ) -> np.ndarray:
        return _pixels.flip(pixels, out)

    def on_batch(self, x_NCHW: Tensor, p_NP: Tensor) -> Tensor:
        return colours.flip(x_NCHW, p_NP[:, 0])
