"""A hole in the image."""

from typing import Literal

import numpy as np
from PIL import Image

from vissl_lite import TRANSFORMS
from vissl_lite.transforms._common import TRIES, check_probability, check_range, random_sides


@TRANSFORMS.register("random_erasing")
class RandomErasing:
    """Paints over a random rectangle with probability p.

    From Zhong et al. 2017 (arXiv 1708.04896); the defaults and the search for a rectangle are
    torchvision's: up to 10 tries, and the image as it is if none fits.

    Args:
        p: the paper's is 0.5, timm's and DeiT's 0.25.
        scale: range of the rectangle's area as a fraction of the image's.
        ratio: range of height over width; its logarithm is uniform.
        fill: RGB, by default ImageNet's mean, which normalisation makes zero; "noise" draws every
            value uniformly from 0 to 255.
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        fill: tuple[int, int, int] | Literal["noise"] = (124, 116, 104),
    ):
        check_probability(p, "random_erasing.p")
        check_range(scale, "random_erasing.scale", high=1.0)
        check_range(ratio, "random_erasing.ratio")
        self.p, self.scale, self.ratio, self.fill = p, scale, ratio, fill

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        apply, u_top, u_left, *uniforms = rng.random(2 * TRIES + 3).tolist()
        width, height = image.size
        if apply >= self.p:
            return image
        for h, w in random_sides(uniforms, width * height, self.scale, self.ratio):
            if 0 < h < height and 0 < w < width:
                top, left = int(u_top * (height - h + 1)), int(u_left * (width - w + 1))
                image = image.copy()
                image.paste(self._patch(h, w, rng), (left, top))
                return image
        return image

    def _patch(self, h: int, w: int, rng: np.random.Generator) -> Image.Image:
        if isinstance(self.fill, str):
            return Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8))
        return Image.new("RGB", (w, h), self.fill)
