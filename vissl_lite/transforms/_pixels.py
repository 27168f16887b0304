"""Changes of a uint8 image [H, W, 3] with OpenCV, each as Pillow makes it.

All functions write into `out` and return it; it may be `pixels` itself, and a new array if None.
Where Pillow cuts off decimals, so do these.
"""

import math
from collections.abc import Sequence

import numpy as np

from vissl_lite.data.opencv import opencv
from vissl_lite.data.transform import Transform, placed

LUMA = np.array([19595, 38470, 7471]) / 65536  # Pillow's ITU-R 601, in sixteen bits
VALUES = np.arange(256)
BOXES = 3  # that Pillow makes a Gaussian of
NEUTRAL = (1.0, 1.0, 1.0, 0.0)  # brightness, contrast, saturation, hue


class PixelTransform(Transform):
    """A transform that keeps the size, by OpenCV where it is installed.

    Attributes:
        neutral: values of the first parameters that leave an image as it is.
    """

    neutral: tuple[float, ...] = (0.0,)

    def on_array(
        self, pixels: np.ndarray, p: Sequence[float], out: np.ndarray | None = None
    ) -> np.ndarray:
        if tuple(p[: len(self.neutral)]) == self.neutral:
            return placed(pixels, out)
        if not opencv():
            return super().on_array(pixels, p, out)
        return self.by_opencv(pixels, p, out)

    def by_opencv(
        self, pixels: np.ndarray, p: Sequence[float], out: np.ndarray | None
    ) -> np.ndarray:
        """`on_array` with OpenCV, for parameters that are not neutral."""
        raise NotImplementedError


def flip(pixels: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """Left and right exchanged."""
    return opencv().flip(pixels, 1, dst=out)


def look_up(pixels: np.ndarray, table: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """x -> table[x], with 256 entries."""
    return opencv().LUT(pixels, table.astype(np.uint8), dst=out)


def grayscale(pixels: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """Luma in all channels."""
    cv2 = opencv()
    return cv2.cvtColor(_luma(pixels), cv2.COLOR_GRAY2RGB, dst=out)


def _luma(pixels: np.ndarray) -> np.ndarray:
    """[H, W]; float32 holds every sum exactly, so that the rounding is Pillow's."""
    weights = np.append(LUMA, 0.5).astype(np.float32)
    return opencv().transform(pixels.astype(np.float32), weights[None]).astype(np.uint8)


def blur(pixels: np.ndarray, sigma: float, out: np.ndarray | None) -> np.ndarray:
    """Three box blurs, each continuing the image by its edge."""
    cv2 = opencv()
    kernel = box_kernel(sigma).astype(np.float32)
    for _ in range(BOXES):
        out = pixels = cv2.sepFilter2D(
            pixels, -1, kernel, kernel, dst=out, borderType=cv2.BORDER_REPLICATE
        )
    return pixels


def box_kernel(sigma: float) -> np.ndarray:
    """A box with soft ends: three of them in a row have the variance sigma^2.

        l = floor((sqrt(12 v + 1) - 1) / 2),  v = sigma^2 / 3
        (alpha, 1, ..., 1, alpha) / (2 l + 1 + 2 alpha), with 2 l + 1 ones

    Gwosdek et al. 2011, Theoretical foundations of Gaussian convolution by extended box filtering.
    """
    v = sigma**2 / BOXES
    radius = math.floor((math.sqrt(12 * v + 1) - 1) / 2)
    alpha = (2 * radius + 1) * (radius * (radius + 1) - 3 * v) / (6 * (v - (radius + 1) ** 2))
    return np.array([alpha, *[1.0] * (2 * radius + 1), alpha]) / (2 * radius + 1 + 2 * alpha)


def jitter(pixels: np.ndarray, p: Sequence[float], out: np.ndarray | None) -> np.ndarray:
    """Brightness, contrast, saturation and hue; p as in `color_jitter`, not all of it neutral."""
    out = np.empty(pixels.shape, np.uint8) if out is None else out
    for k in map(int, p[4:]):
        if p[k] != NEUTRAL[k]:
            pixels = OPERATIONS[k](pixels, p[k], out)
    return pixels


def _brightness(pixels: np.ndarray, factor: float, out: np.ndarray) -> np.ndarray:
    """OpenCV rounds: -0.499 makes it cut off decimals. Twice as fast as a table."""
    return opencv().convertScaleAbs(pixels, out, factor, -0.499)


def _contrast(pixels: np.ndarray, factor: float, out: np.ndarray) -> np.ndarray:
    """mean + factor (x - mean) for each value x, in float32 as in Pillow's Image.blend."""
    mean = int(opencv().mean(_luma(pixels))[0] + 0.5)
    distance = (VALUES - mean).astype(np.float32)
    return look_up(pixels, (mean + np.float32(factor) * distance).clip(0, 255), out)


def _saturation(pixels: np.ndarray, factor: float, out: np.ndarray) -> np.ndarray:
    """factor x + (1 - factor) luma(x), a matrix. OpenCV rounds: -0.48 makes it cut off decimals,
    and leaves its fixed-point sums room for their own error, so that grey stays grey."""
    matrix_33 = factor * np.eye(3) + (1 - factor) * LUMA
    matrix_34 = np.hstack([matrix_33, np.full((3, 1), -0.48)])
    return opencv().transform(pixels, matrix_34.astype(np.float32), dst=out)


def _hue(pixels: np.ndarray, turn: float, out: np.ndarray) -> np.ndarray:
    """In HSV of 8 bits. OpenCV rounds the hue to 1/256 of a turn, Pillow cuts it off to 1/255."""
    cv2 = opencv()
    table = (VALUES * 255 // 256 + int(turn * 255)) & 255
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL, dst=out)
    hue_HW = look_up(cv2.extractChannel(hsv, 0), table, None)
    return cv2.cvtColor(cv2.insertChannel(hue_HW, hsv, 0), cv2.COLOR_HSV2RGB_FULL, dst=out)


OPERATIONS = (_brightness, _contrast, _saturation, _hue)
