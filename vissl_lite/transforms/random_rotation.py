"""Turned images."""

import numpy as np
from PIL import Image
from torchvision.transforms import InterpolationMode

from vissl_lite import TRANSFORMS
from vissl_lite.transforms._common import F, Interpolation, check_at_least


@TRANSFORMS.register("random_rotation")
class RandomRotation:
    """Turns the image about its centre by an angle uniform in [-degrees, degrees]; the size stays.

    Args:
        degrees: 15 keeps handwritten digits readable; 180 suits what has no upright position.
        fill: value of the corners, 0 to 255.
    """

    def __init__(
        self, degrees: float = 15.0, interpolation: Interpolation = "bilinear", fill: int = 0
    ):
        check_at_least(degrees, "random_rotation.degrees", high=180)
        check_at_least(fill, "random_rotation.fill", high=255)
        self.degrees, self.fill = degrees, [fill] * 3
        self.interpolation = InterpolationMode(interpolation)

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        angle = self.degrees * (2 * rng.random() - 1)
        return F.rotate(image, angle, self.interpolation, fill=self.fill)
