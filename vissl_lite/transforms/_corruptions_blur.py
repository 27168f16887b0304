"""Corruptions by loss of sharpness; lengths are pixels at scale 1. H, W, C: of an image.

SciPy is imported where it is used: it comes with scikit-learn and takes a while.
"""

import math
from functools import lru_cache
from typing import Literal

import numpy as np


def defocus_blur(
    x_HWC: np.ndarray, rng: np.random.Generator, scale: float, radius: float, soft: float
) -> np.ndarray:
    """Mean over a disk with an edge that a Gaussian of `soft` pixels makes smooth."""
    from scipy.ndimage import gaussian_filter

    radius, margin = radius * scale, 1 if radius <= 8 else 2
    reach = math.floor(radius) + margin
    i_R = np.arange(-reach, reach + 1)
    disk_RR = (i_R**2 + i_R[:, None] ** 2 <= radius**2).astype(float)
    disk_RR = gaussian_filter(disk_RR, soft, radius=margin, mode="constant")
    return weighted_mean(x_HWC, disk_RR / disk_RR.sum(), "reflect")


def glass_blur(
    x_HWC: np.ndarray,
    rng: np.random.Generator,
    scale: float,
    sigma: float,
    reach: int,
    rounds: int,
) -> np.ndarray:
    """Pixels take the place of others nearby, between two Gaussian blurs.

    From the last pixel to the first, each becomes a copy of one at most `reach` away, which may be
    a copy itself. The paper speaks of an exchange, but its program copies, and its data show that.
    """
    from scipy.ndimage import gaussian_filter

    sigma, reach = sigma * scale, max(1, round(reach * scale))
    height, width, _ = x_HWC.shape
    rows, columns = range(height - reach, reach, -1), range(width - reach, reach, -1)
    x_HWC = gaussian_filter(x_HWC, (sigma, sigma, 0), mode="nearest")
    source = list(range(height * width))
    for _ in range(rounds):
        step_HW2 = rng.integers(-reach, reach, (len(rows), len(columns), 2))
        steps = iter((step_HW2 @ [width, 1]).ravel().tolist())
        for row in rows:
            for place in range(row * width + columns.start, row * width + columns.stop, -1):
                source[place] = source[place + next(steps)]
    x_HWC = x_HWC.reshape(height * width, -1)[source].reshape(x_HWC.shape)
    return gaussian_filter(x_HWC, (sigma, sigma, 0), mode="nearest")


def motion_blur(
    x_HWC: np.ndarray, rng: np.random.Generator, scale: float, radius: float, sigma: float
) -> np.ndarray:
    """`streaks` in a direction of -45 to 45 degrees from the horizontal."""
    return streaks(x_HWC, radius * scale, sigma * scale, rng.uniform(-45, 45))


def streaks(x_HWC: np.ndarray, radius: float, sigma: float, degrees: float) -> np.ndarray:
    """Weighted mean of the pixels on one side along a line; the edge goes on outside the image.

        weight of the pixel at distance i = exp(-i^2 / (2 sigma^2)) / sum,   i = 0..2 ceil(radius)

    This is ImageMagick's motion blur; as there, places on the line are rounded, halves down.
    """
    reach = 2 * math.ceil(radius)
    i_K, angle = np.arange(reach + 1), math.radians(degrees)
    right_K = np.ceil(i_K * math.cos(angle) - 0.5).astype(int)
    down_K = np.ceil(i_K * math.sin(angle) - 0.5).astype(int)
    kernel_RR = np.zeros((2 * reach + 1, 2 * reach + 1))
    np.add.at(kernel_RR, (reach + down_K, reach + right_K), np.exp(-((i_K / sigma) ** 2) / 2))
    return weighted_mean(x_HWC, kernel_RR / kernel_RR.sum(), "edge")


def zoom_blur(
    x_HWC: np.ndarray, rng: np.random.Generator, scale: float, stop: float, step: float
) -> np.ndarray:
    """Mean of the image and of its middle enlarged by 1, 1 + step, ... below `stop`."""
    factors = np.arange(1, stop, step)  # with the last one that rounding errors let in, as there
    return (x_HWC + sum(enlarged(x_HWC, factor) for factor in factors)) / (len(factors) + 1)


def enlarged(x_HWC: np.ndarray, factor: float) -> np.ndarray:
    """The middle of the image, `factor` times as large, bilinear."""
    rows_HH, columns_WW = (enlarger(side, factor) for side in x_HWC.shape[:2])
    return np.moveaxis(rows_HH @ np.moveaxis(x_HWC, 2, 0) @ columns_WW.T, 0, 2)


@lru_cache(maxsize=64)
def enlarger(side: int, factor: float) -> np.ndarray:
    """[side, side]: the matrix that does it to one side; as such it is several times as fast."""
    from scipy.ndimage import zoom

    inner = math.ceil(side / factor)
    first = (side - inner) // 2
    large = np.asarray(zoom(np.eye(side)[first : first + inner], (factor, 1), order=1))
    first = (len(large) - side) // 2
    return large[first : first + side]


def weighted_mean(
    x_HWC: np.ndarray, kernel_RR: np.ndarray, beyond: Literal["reflect", "edge"]
) -> np.ndarray:
    """Correlation with a kernel of odd sides; `beyond` the edges as in `numpy.pad`."""
    from scipy.signal import fftconvolve

    margin = len(kernel_RR) // 2
    padded = np.pad(x_HWC, [(margin, margin), (margin, margin), (0, 0)], mode=beyond)
    return fftconvolve(padded, kernel_RR[::-1, ::-1, None], mode="valid", axes=(0, 1))
