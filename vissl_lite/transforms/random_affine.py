"""Turned, shifted, scaled and sheared images."""

import math

import numpy as np

from vissl_lite import TRANSFORMS
from vissl_lite.transforms._common import (
    Interpolation,
    check_at_least,
    check_range,
    elementwise,
)
from vissl_lite.transforms._warp import Warp


@TRANSFORMS.register("random_affine")
class RandomAffine(Warp):
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

    draws = 5

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
        super().__init__(interpolation, fill)
        self.degrees, self.translate, self.scale, self.shear = degrees, translate, scale, shear

    def amounts(self, u_ND: np.ndarray, width: int, height: int) -> np.ndarray:
        """[N, 5]: angle in degrees, shift to the right and down, shear in degrees, factor."""
        turn_N, x_N, y_N, shear_N, zoom_N = u_ND.T
        low, high = self.scale
        return np.stack(
            [
                self.degrees * (2 * turn_N - 1),
                np.rint(width * self.translate[0] * (2 * x_N - 1)),
                np.rint(height * self.translate[1] * (2 * y_N - 1)),
                self.shear * (2 * shear_N - 1),
                low + (high - low) * zoom_N,
            ],
            1,
        )

    def parameters(self, u_ND: np.ndarray, width: int, height: int) -> np.ndarray:
        """[a, b, c, d, e, f] of the inverse map, those of torchvision's affine.

        source = centre + (rotation shear)^-1 (target - centre - shift) / factor
        """
        angle_N, *shift_2N, shear_N, factor_N = self.amounts(u_ND, width, height).T
        cos_N = elementwise(math.cos, np.radians(angle_N))
        sin_N = elementwise(math.sin, np.radians(angle_N))
        tan_N = elementwise(math.tan, np.radians(shear_N))
        a_N = (-sin_N * tan_N + cos_N) / factor_N
        b_N = (cos_N * tan_N + sin_N) / factor_N
        d_N, e_N = -sin_N / factor_N, cos_N / factor_N
        x, y = width * 0.5, height * 0.5
        from_x_N, from_y_N = -x - shift_2N[0], -y - shift_2N[1]
        c_N = a_N * from_x_N + b_N * from_y_N + x
        f_N = d_N * from_x_N + e_N * from_y_N + y
        return np.stack([a_N, b_N, c_N, d_N, e_N, f_N], 1)
