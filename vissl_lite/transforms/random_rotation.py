"""Turned images."""

import math

import numpy as np

from vissl_lite import TRANSFORMS
from vissl_lite.transforms._common import Interpolation, check_at_least, elementwise
from vissl_lite.transforms._warp import Warp


@TRANSFORMS.register("random_rotation")
class RandomRotation(Warp):
    """Turns the image about its centre by an angle uniform in [-degrees, degrees]; the size stays.

    Args:
        degrees: 15 keeps handwritten digits readable; 180 suits what has no upright position.
        fill: value of the corners, 0 to 255.
    """

    draws = 1

    def __init__(
        self, degrees: float = 15.0, interpolation: Interpolation = "bilinear", fill: int = 0
    ):
        check_at_least(degrees, "random_rotation.degrees", high=180)
        check_at_least(fill, "random_rotation.fill", high=255)
        super().__init__(interpolation, fill)
        self.degrees = degrees

    def parameters(self, u_ND: np.ndarray, width: int, height: int) -> np.ndarray:
        """[a, b, c, d, e, f] of the inverse map, those of Pillow's Image.rotate."""
        angle_N = -np.radians(self.degrees * (2 * u_ND[:, 0] - 1) % 360.0)
        cos_N = elementwise(lambda angle: round(math.cos(angle), 15), angle_N)
        sin_N = elementwise(lambda angle: round(math.sin(angle), 15), angle_N)
        x, y = width / 2, height / 2
        c_N = cos_N * -x + sin_N * -y + x
        f_N = -sin_N * -x + cos_N * -y + y
        return np.stack([cos_N, sin_N, c_N, -sin_N, cos_N, f_N], 1)
