import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter

from vissl_lite import TRANSFORMS


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_close_to_an_exact_gaussian(sigma, photo, rng):
    config = {"name": "gaussian_blur", "p": 1.0, "sigma": [sigma, sigma]}
    ours = np.asarray(TRANSFORMS.build(config)(photo, rng), float)
    exact = gaussian_filter(np.asarray(photo, float), (sigma, sigma, 0), mode="nearest")
    effect = np.abs(np.asarray(photo, float) - exact).mean()
    assert np.abs(ours - exact).mean() < 0.1 * effect  # measured 9, 4, 3 %


def test_probability_and_range_of_sigma(rng):
    """The spread of a blurred dot tells sigma: both moments of U(0.5, 2)."""
    dot = np.zeros((33, 33, 3), np.uint8)
    dot[16, 16] = 255
    transform = TRANSFORMS.build({"name": "gaussian_blur", "sigma": [0.5, 2.0]})
    peaks = [int(np.asarray(transform(Image.fromarray(dot), rng)).max()) for _ in range(2000)]
    blurred = [peak for peak in peaks if peak < 255]
    assert abs(len(blurred) / 2000 - 0.5) < 4 * np.sqrt(0.25 / 2000)
    limits = [
        int(np.asarray(Image.fromarray(dot).filter(ImageFilter.GaussianBlur(s))).max())
        for s in (0.5, 1.25, 2.0)
    ]
    assert limits[0] >= max(blurred) > limits[0] - 5
    assert min(blurred) == limits[2]
    assert abs(np.mean(np.array(blurred) > limits[1]) - 0.5) < 4 * np.sqrt(0.25 / len(blurred))
