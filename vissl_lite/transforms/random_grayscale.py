"""Images without colour."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from vissl_lite import TRANSFORMS
from vissl_lite.data import colours
from vissl_lite.transforms import _pixels
from vissl_lite.transforms._common import check_probability


@TRANSFORMS.register("random_grayscale")
class RandomGrayscale(_pixels.PixelTransform):
    """Replaces the colours by their luma (ITU-R 601) with probability p; the image stays RGB.

    Args:
        p: 0.2 in SimCLR (arXiv 2002.05709, appendix A) and all that followed.
    """

    draws = 1

    def __init__(self, p: float = 0.2):
        check_probability(p, "random_grayscale.p")
        self.p = p

    def parameters(self, u_ND: np.ndarray, width: int, height: int) -> np.ndarray:
        """[on]"""
        return (u_ND < self.p).astype(float)

    def on_image(self, image: Image.Image, p: Sequence[float]) -> Image.Image:
        return image.convert("L").convert("RGB") if p[0] else image

    def by_opencv(
        self, pixels: np.ndarray, p: Sequence[float], out: np.ndarray | None
    ) -> np.ndarray:
        return _pixels.grayscale(pixels, out)

    def on_batch(self, x_NCHW: Tensor, p_NP: Tensor) -> Tensor:
        return colours.grayscale(x_NCHW, p_NP[:, 0])
