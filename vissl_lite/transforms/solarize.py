"""Bright colours inverted."""

import numpy as np
from PIL import Image, ImageOps

from vissl_lite import TRANSFORMS
from vissl_lite.transforms._common import check_at_least, check_probability


@TRANSFORMS.register("solarize")
class Solarize:
    """Inverts all values from a threshold upward, with probability p.

        x -> x if x < threshold else 255 - x

    Args:
        p: 0.2 for the second view of BYOL (Grill et al. 2020, arXiv 2006.07733, appendix B).
        threshold: 128, half of the range, in BYOL and DINO; fixed, whereas VISSL drew it at random.
    """

    def __init__(self, p: float = 0.2, threshold: int = 128):
        check_probability(p, "solarize.p")
        check_at_least(threshold, "solarize.threshold", high=256)
        self.p, self.threshold = p, threshold

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        return image if rng.random() >= self.p else ImageOps.solarize(image, self.threshold)
