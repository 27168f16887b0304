"""Mirror images."""

import numpy as np
from PIL import Image

from vissl_lite import TRANSFORMS
from vissl_lite.transforms._common import check_probability


@TRANSFORMS.register("random_horizontal_flip")
class RandomHorizontalFlip:
    """Swaps left and right with probability p.

    Args:
        p: 0.5 in every method here.
    """

    def __init__(self, p: float = 0.5):
        check_probability(p, "random_horizontal_flip.p")
        self.p = p

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        if rng.random() >= self.p:
            return image
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
