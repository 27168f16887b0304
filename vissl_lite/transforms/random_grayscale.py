"""Images without colour."""

import numpy as np
from PIL import Image

from vissl_lite import TRANSFORMS
from vissl_lite.transforms._common import check_probability


@TRANSFORMS.register("random_grayscale")
class RandomGrayscale:
    """Replaces the colours by their luma (ITU-R 601) with probability p; the image stays RGB.

    Args:
        p: 0.2 in SimCLR (arXiv 2002.05709, appendix A) and all that followed.
    """

    def __init__(self, p: float = 0.2):
        check_probability(p, "random_grayscale.p")
        self.p = p

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        return image if rng.random() >= self.p else image.convert("L").convert("RGB")
