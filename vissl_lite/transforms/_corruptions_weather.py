"""Corruptions by weather; lengths are pixels at scale 1. H, W, C: of an image."""

import math

import numpy as np

from vissl_lite.transforms._corruptions_blur import enlarged, streaks

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601
ICE = np.array([0.78, 0.88, 1.0])  # the colour of thick frost
NEEDLE = 1 / 14  # half the length of a needle over the short side of the image


def snow(
    x_HWC: np.ndarray,
    rng: np.random.Generator,
    scale: float,
    mean: float,
    spread: float,
    flake: float,
    threshold: float,
    radius: float,
    sigma: float,
    kept: float,
) -> np.ndarray:
    """Flakes that the wind draws into streaks, and the same turned round, on a paler image.

    n = N(mean, spread^2), enlarged `flake` times;  layer = streaks of n where n >= threshold;
    pale = max(x, 1.5 luma + 0.5);  result = kept x + (1 - kept) pale + layer + turned layer
    """
    layer_HW1 = rng.normal(mean, spread, (*x_HWC.shape[:2], 1))
    layer_HW1 = enlarged(layer_HW1, max(1.0, flake * scale))
    layer_HW1 = np.where(layer_HW1 < threshold, 0, layer_HW1.clip(0, 1))
    layer_HW1 = streaks(layer_HW1, radius * scale, sigma * scale, rng.uniform(-135, -45))
    pale_HWC = np.maximum(x_HWC, 1.5 * (x_HWC @ LUMA)[..., None] + 0.5)
    return kept * x_HWC + (1 - kept) * pale_HWC + layer_HW1 + layer_HW1[::-1, ::-1]


def frost(
    x_HWC: np.ndarray, rng: np.random.Generator, scale: float, image: float, ice: float
) -> np.ndarray:
    """image x + ice frost, of a frost that is computed.

    ImageNet-C takes photographs of frost, which do not come with this library. Here it is needles
    in six directions, 60 degrees apart, on a hazy pane, thick in some places and absent in others.
    Not comparable with the `frost` of ImageNet-C.
    """
    height, width, _ = x_HWC.shape
    length = NEEDLE * min(height, width)
    cover = plasma(max(height, width), 1.6, rng)[:height, :width, None]
    seeds_HW1 = (rng.random((height, width, 1)) < 1 / (3 * length)) * rng.random((height, width, 1))
    first = rng.uniform(0, 60)
    needles = sum(streaks(seeds_HW1, length, length, first + 60 * k) for k in range(6))
    crystals = 1 - np.exp(-length * needles)
    layer_HW1 = (2.5 * cover - 0.4).clip(0, 1) * (0.35 + 0.65 * crystals)
    return image * x_HWC + ice * layer_HW1 * ICE


def fog(
    x_HWC: np.ndarray, rng: np.random.Generator, scale: float, amount: float, decay: float
) -> np.ndarray:
    """(x + amount plasma) max(x) / (max(x) + amount)."""
    height, width, _ = x_HWC.shape
    layer_HW1 = plasma(max(height, width), decay, rng)[:height, :width, None]
    largest = x_HWC.max()
    return (x_HWC + amount * layer_HW1) * largest / (largest + amount)


def brightness(
    x_HWC: np.ndarray, rng: np.random.Generator, scale: float, amount: float
) -> np.ndarray:
    """V + amount in HSV; hue and saturation stay, so RGB grows in proportion, black to grey."""
    v_HW1 = x_HWC.max(axis=2, keepdims=True)
    new_HW1 = np.minimum(v_HW1 + amount, 1)
    black_HW1 = v_HW1 == 0
    return np.where(black_HW1, new_HW1, x_HWC * (new_HW1 / np.where(black_HW1, 1, v_HW1)))


def plasma(side: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Clouds in [0, 1], at least `side` x `side`: midpoint displacement on a torus.

        the middle of each square, then of each of its sides = mean of four neighbours + a U(-1, 1)
        and again on half the distance, with a / decay^2 for a

    Fournier, Fussell and Carpenter 1982.
    """
    size = 2 ** max(1, math.ceil(math.log2(side)))
    map_SS, step, a = np.zeros((size, size)), size, 1.0
    while step > 1:
        corner, half = map_SS[::step, ::step], step // 2
        below = corner + np.roll(corner, -1, 0)
        centre = (below + np.roll(below, -1, 1)) / 4 + a * rng.uniform(-1, 1, corner.shape)
        map_SS[half::step, half::step] = centre
        for axis in (0, 1):
            ends = corner + np.roll(corner, -1, axis) + centre + np.roll(centre, 1, 1 - axis)
            place = np.s_[half::step, ::step] if axis == 0 else np.s_[::step, half::step]
            map_SS[place] = ends / 4 + a * rng.uniform(-1, 1, corner.shape)
        step, a = half, a / decay**2
    map_SS -= map_SS.min()
    return map_SS / map_SS.max()
