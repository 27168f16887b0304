"""Turned, shifted, scaled and sheared images."""

import numpy as np
from PIL import Image
from torchvision.transforms import InterpolationMode

from vissl_lite import TRANSFORMS
from vissl_lite.transforms._common import F, Interpolation, check_at_least, check_range


@TRANSFORMS.register("random_affine")
class RandomAffine:
    """Rotation, shift, scaling and shear by random amounts; the size of the image stays.

    Each amount is uniform in its range, and the centre of the image is what stays in place. The
    defaults are small enough for handwritten digits; the distributions are torchvision's.

    Args:
        degrees: rotation in [-degrees, degrees].
        translate: largest shift as a fraction of width and height, in whole pixels.
        scale: range of the factor; below 1 the image shrinks within its frame.
        shear: degrees along x, in [-shear, shear].
        fill: value of what comes from outside, 0 to 255.
    """

    def __init__(
        self,
        degrees: float = 10.0,
        translate: tuple[float, float] = (0.1, 0.1),
        scale: tuple[float, float] = (0.9, 1.1),
        shear: float = 0.0,
        interpolation: Interpolation = "bilinear",
        fill: int = 0,
    ):
        check_at_least(degrees, "random_affine.degrees", high=180)
        for i, fraction in enumerate(translate):
            check_at_least(fraction, f"random_affine.translate[{i}]", high=1)
        check_range(scale, "random_affine.scale")
        check_at_least(shear, "random_affine.shear", high=89)
        check_at_least(fill, "random_affine.fill", high=255)
        self.degrees, self.translate, self.scale, self.shear = degrees, translate, scale, shear
        self.interpolation, self.fill = InterpolationMode(interpolation), [fill] * 3

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        turn, x, y, shear, zoom = rng.random(5).tolist()
        return F.affine(
            image,
            angle=self.degrees * (2 * turn - 1),
            translate=[
                round(side * fraction * (2 * u - 1))
                for side, fraction, u in zip(image.size, self.translate, (x, y))
            ],
            scale=self.scale[0] + (self.scale[1] - self.scale[0]) * zoom,
            shear=[self.shear * (2 * shear - 1), 0.0],
            interpolation=self.interpolation,
            fill=self.fill,
        )
