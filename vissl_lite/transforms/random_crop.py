"""The crop of small images: shifted, not resized."""

from typing import Literal

import numpy as np
from PIL import Image

from vissl_lite import TRANSFORMS
from vissl_lite.errors import ConfigError
from vissl_lite.transforms._common import F, check_at_least


@TRANSFORMS.register("random_crop")
class RandomCrop:
    """Pads on all sides and takes a square of the size of the view at a random place.

    The default padding is that of CIFAR (He et al. 2016, arXiv 1512.03385, section 4.2).

    Args:
        padding: pixels added on each side.
        mode: what they show: black, or the image mirrored or repeated at its edge.
        size: pixels per side of the result.

    Raises:
        ConfigError: on a call, when the padded image is smaller than the view.
    """

    def __init__(
        self,
        padding: int = 4,
        mode: Literal["constant", "reflect", "symmetric", "edge"] = "constant",
        *,
        size: int,
    ):
        check_at_least(padding, "random_crop.padding")
        self.padding, self.mode, self.size = padding, mode, size

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        image = F.pad(image, [self.padding], padding_mode=self.mode)
        slack = min(image.size) - self.size
        if slack < 0:
            raise ConfigError(
                f"random_crop: {image.width}x{image.height} pixels with padding have no room for"
                f" a view of {self.size}; put resize before it"
            )
        u_top, u_left = rng.random(2).tolist()
        top = int(u_top * (image.height - self.size + 1))
        left = int(u_left * (image.width - self.size + 1))
        return image.crop((left, top, left + self.size, top + self.size))
