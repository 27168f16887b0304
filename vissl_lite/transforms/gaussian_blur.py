"""Loss of sharpness."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter
from torch import Tensor

from vissl_lite import TRANSFORMS
from vissl_lite.data import colours
from vissl_lite.transforms import _pixels
from vissl_lite.transforms._common import check_probability, check_range


@TRANSFORMS.register("gaussian_blur")
class GaussianBlur(_pixels.PixelTransform):
    """Gaussian blur of random width with probability p.

    The kernel is Pillow's, three box blurs with the variance of the Gaussian, as in the code of
    SwAV, DINO and VISSL; SimCLR's own is a sampled Gaussian a tenth of the side wide.

    Args:
        p: SimCLR's (arXiv 2002.05709, appendix A).
        sigma: range of the standard deviation in pixels, uniform; SimCLR's, whatever the size.
    """

    draws = 2

    def __init__(self, p: float = 0.5, sigma: tuple[float, float] = (0.1, 2.0)):
        check_probability(p, "gaussian_blur.p")
        check_range(sigma, "gaussian_blur.sigma")
        self.p, self.sigma = p, sigma

    def parameters(self, u_ND: np.ndarray, width: int, height: int) -> np.ndarray:
        """[sigma], 0 where the image stays as it is."""
        low, high = self.sigma
        return np.where(u_ND[:, :1] < self.p, low + (high - low) * u_ND[:, 1:], 0.0)

    def on_image(self, image: Image.Image, p: Sequence[float]) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(p[0])) if p[0] else image

    def by_opencv(
        self, pixels: np.ndarray, p: Sequence[float], out: np.ndarray | None
    ) -> np.ndarray:
        return _pixels.blur(pixels, p[0], out)

    def on_batch(self, x_NCHW: Tensor, p_NP: Tensor) -> Tensor:
        return colours.blur(x_NCHW, p_NP[:, 0], self.sigma[1])
