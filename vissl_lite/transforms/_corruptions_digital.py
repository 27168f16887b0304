"""Corruptions by digital processing; lengths are pixels at scale 1. H, W, C: of an image."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image
from PIL.Image import Resampling


def contrast(x_HWC: np.ndarray, rng: np.random.Generator, scale: float, kept: float) -> np.ndarray:
    """mean + kept (x - mean), with the mean of each channel."""
    mean_C = x_HWC.mean((0, 1))
    return mean_C + kept * (x_HWC - mean_C)


def elastic_transform(
    x_HWC: np.ndarray,
    rng: np.random.Generator,
    scale: float,
    amplitude: float,
    sigma: float,
    shift: float,
) -> np.ndarray:
    """Places moved by smooth random fields, after a random affine map; bilinear, reflected edges.

    y(p) = x(A^-1 (p + d(p))),  d = amplitude Gaussian_sigma(U(-1, 1)) in each direction

    A moves three points around the centre, a third of the short side from it, by U(-shift, shift).
    """
    from scipy.ndimage import map_coordinates

    sides = x_HWC.shape[:2]
    affine_32 = random_affine(sides, shift * scale, rng)
    smooth_HH, smooth_WW = (smoother(side, sigma * scale) for side in sides)
    field_2HW = smooth_HH @ rng.uniform(-1, 1, (2, *sides)) @ smooth_WW.T
    place_2HW = np.indices(sides) + amplitude * scale * field_2HW
    place_2HW = np.tensordot(affine_32[:2].T, place_2HW, 1) + affine_32[2][:, None, None]
    channels = np.moveaxis(x_HWC, 2, 0)
    return np.stack(
        [map_coordinates(x_HW, place_2HW, order=1, mode="mirror") for x_HW in channels], 2
    )


def random_affine(sides: tuple[int, ...], shift: float, rng: np.random.Generator) -> np.ndarray:
    """[3, 2]: (row, column, 1) @ affine is where the pixel comes from."""
    arm, centre_2 = max(min(sides) // 3, 1), np.array(sides) // 2
    from_32 = centre_2 + arm * np.array([[1, 1], [-1, 1], [-1, -1]])
    to_32 = from_32 + rng.uniform(-shift, shift, (3, 2))
    return np.linalg.solve(np.c_[to_32, np.ones(3)], from_32)


@lru_cache(maxsize=8)
def smoother(side: int, sigma: float) -> np.ndarray:
    """[side, side]: the matrix of a Gaussian filter whose edges are reflected.

    The filters are up to five images wide, and as a matrix none of them costs more than another.
    """
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(np.eye(side), (sigma, 0), mode="reflect", truncate=3)


def pixelate(x_HWC: np.ndarray, rng: np.random.Generator, scale: float, kept: float) -> np.ndarray:
    """Reduced to a share `kept` of each side and enlarged again, both by Pillow's box filter."""
    image = _image(x_HWC)
    small = (max(1, int(image.width * kept)), max(1, int(image.height * kept)))
    image = image.resize(small, Resampling.BOX).resize(image.size, Resampling.BOX)
    return np.asarray(image) / 255


def jpeg_compression(
    x_HWC: np.ndarray, rng: np.random.Generator, scale: float, quality: int
) -> np.ndarray:
    """Encoded by Pillow and decoded."""
    file = io.BytesIO()
    _image(x_HWC).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)) / 255


def _image(x_HWC: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(x_HWC * 255).astype(np.uint8))
