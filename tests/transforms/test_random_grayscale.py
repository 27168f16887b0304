import numpy as np
from torchvision.transforms import v2

from vissl_lite import TRANSFORMS


def test_grey_with_probability_p(photo, rng):
    transform = TRANSFORMS.build("random_grayscale")
    grey = np.asarray(v2.functional.rgb_to_grayscale(photo, num_output_channels=3))
    results = [np.asarray(transform(photo, rng)) for _ in range(1000)]
    greyed = [bool((r == grey).all()) for r in results]
    assert all(g or (r == np.asarray(photo)).all() for g, r in zip(greyed, results))
    assert abs(np.mean(greyed) - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 1000)


def test_luma_of_itu_601(photo, rng):
    grey = TRANSFORMS.build({"name": "random_grayscale", "p": 1.0})(photo, rng)
    luma = np.asarray(photo, float) @ [0.299, 0.587, 0.114]
    assert np.abs(np.asarray(grey, float) - luma[..., None]).max() <= 0.51  # rounding
