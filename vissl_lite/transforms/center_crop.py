"""The middle of an image, the second half of the usual view for evaluation."""

import numpy as np
from PIL import Image

from vissl_lite import TRANSFORMS
from vissl_lite.transforms._common import F


@TRANSFORMS.register("center_crop")
class CenterCrop:
    """The central square of the size of the view; a smaller image is padded with black.

    Args:
        size: pixels per side of the result.
    """

    def __init__(self, *, size: int):
        self.size = size

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        return F.center_crop(image, [self.size, self.size])
