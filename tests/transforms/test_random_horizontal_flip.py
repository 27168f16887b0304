import numpy as np
import pytest
from torchvision.transforms import v2

from vissl_lite import TRANSFORMS, ConfigError


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_mirrors_with_probability_p(p, photo, rng):
    small = photo.resize((8, 8))
    transform = TRANSFORMS.build({"name": "random_horizontal_flip", "p": p})
    mirrored = np.asarray(v2.functional.horizontal_flip(small))
    results = [np.asarray(transform(small, rng)) for _ in range(2000)]
    flipped = [bool((r == mirrored).all()) for r in results]
    assert all(f or (r == np.asarray(small)).all() for f, r in zip(flipped, results))
    assert abs(np.mean(flipped) - p) <= 4 * np.sqrt(p * (1 - p) / 2000)


def test_p_is_a_probability():
    with pytest.raises(ConfigError, match=r"p: 1.5 is not a probability"):
        TRANSFORMS.build({"name": "random_horizontal_flip", "p": 1.5})
