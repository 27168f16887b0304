"""Loss of sharpness."""

import numpy as np
from PIL import Image, ImageFilter

from vissl_lite import TRANSFORMS
from vissl_lite.transforms._common import check_probability, check_range


@TRANSFORMS.register("gaussian_blur")
class GaussianBlur:
    """Gaussian blur of random width with probability p.

    The kernel is Pillow's, three box blurs with the variance of the Gaussian, as in the code of
    SwAV, DINO and VISSL; SimCLR's own is a sampled Gaussian a tenth of the side wide.

    Args:
        p: SimCLR's (arXiv 2002.05709, appendix A).
        sigma: range of the standard deviation in pixels, uniform; SimCLR's, whatever the size.
    """

    def __init__(self, p: float = 0.5, sigma: tuple[float, float] = (0.1, 2.0)):
        check_probability(p, "gaussian_blur.p")
        check_range(sigma, "gaussian_blur.sigma")
        self.p, self.sigma = p, sigma

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        apply, u = rng.random(2).tolist()
        if apply >= self.p:
            return image
        low, high = self.sigma
        return image.filter(ImageFilter.GaussianBlur(low + (high - low) * u))
