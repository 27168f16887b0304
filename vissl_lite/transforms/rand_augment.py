"""A few random operations out of fourteen, all of one strength."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from torchvision.transforms import InterpolationMode

from vissl_lite import TRANSFORMS
from vissl_lite.data.transform import Transform
from vissl_lite.transforms._common import F, Interpolation, check_at_least

LEVELS = 30  # magnitude 30 is full strength


def _affine(image: Image.Image, mode: InterpolationMode, **change) -> Image.Image:
    still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    return F.affine(image, **{**still, **change}, interpolation=mode)


def _slant(m: float) -> float:
    return math.degrees(math.atan(0.3 * m))


# Name -> operation(image, m, mode) with the strength m in [0, 1], in [-1, 1] if not in UNSIGNED.
OPERATIONS: dict[str, Callable[[Image.Image, float, InterpolationMode], Image.Image]] = {
    "identity": lambda im, m, mode: im,
    "shear_x": lambda im, m, mode: _affine(im, mode, shear=[_slant(m), 0.0], center=[0, 0]),
    "shear_y": lambda im, m, mode: _affine(im, mode, shear=[0.0, _slant(m)], center=[0, 0]),
    "translate_x": lambda im, m, mode: _affine(
        im, mode, translate=[int(150 / 331 * m * im.width), 0]
    ),
    "translate_y": lambda im, m, mode: _affine(
        im, mode, translate=[0, int(150 / 331 * m * im.height)]
    ),
    "rotate": lambda im, m, mode: F.rotate(im, 30 * m, mode),
    "brightness": lambda im, m, mode: F.adjust_brightness(im, 1 + 0.9 * m),
    "saturation": lambda im, m, mode: F.adjust_saturation(im, 1 + 0.9 * m),
    "contrast": lambda im, m, mode: F.adjust_contrast(im, 1 + 0.9 * m),
    "sharpness": lambda im, m, mode: F.adjust_sharpness(im, 1 + 0.9 * m),
    "posterize": lambda im, m, mode: F.posterize(im, 8 - round(4 * m)),
    "solarize": lambda im, m, mode: F.solarize(im, 255 * (1 - m)),
    "autocontrast": lambda im, m, mode: F.autocontrast(im),
    "equalize": lambda im, m, mode: F.equalize(im),
}
UNSIGNED = frozenset({"identity", "posterize", "solarize", "autocontrast", "equalize"})


@TRANSFORMS.register("rand_augment")
class RandAugment(Transform):
    """RandAugment: num_ops operations, drawn from 14 with replacement (arXiv 1909.13719).

    Operations, their ranges and the defaults are torchvision's; shifts, turns and enhancements take
    a random sign, and what comes from outside the image is black.

    Args:
        magnitude: 0 to 30 (torchvision's 31 bins).
    """

    def __init__(
        self, num_ops: int = 2, magnitude: int = 9, interpolation: Interpolation = "nearest"
    ):
        check_at_least(num_ops, "rand_augment.num_ops")
        check_at_least(magnitude, "rand_augment.magnitude", high=LEVELS)
        self.num_ops, self.magnitude = num_ops, magnitude
        self.mode = InterpolationMode(interpolation)
        self.draws = 2 * num_ops

    def parameters(self, u_ND: np.ndarray, width: int, height: int) -> np.ndarray:
        """For each operation its place among the fourteen, and its sign if it has one."""
        p_ND = np.where(u_ND < 0.5, 1.0, -1.0)
        p_ND[:, ::2] = np.floor(u_ND[:, ::2] * len(OPERATIONS))
        return p_ND

    def on_image(self, image: Image.Image, p: Sequence[float]) -> Image.Image:
        names = list(OPERATIONS)
        for place, sign in zip(p[::2], p[1::2]):
            name = names[int(place)]
            m = self.magnitude / LEVELS * (1 if name in UNSIGNED else sign)
            image = OPERATIONS[name](image, m, self.mode)
        return image
