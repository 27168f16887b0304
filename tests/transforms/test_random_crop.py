from collections import Counter

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as F

from vissl_lite import TRANSFORMS, ConfigError


@pytest.fixture
def addresses():
    """32 x 32 pixels, each with its own address as colour, offset by one so that padding is 0."""
    y, x = np.mgrid[1:33, 1:33].astype(np.uint8)
    return Image.fromarray(np.stack([x, y, x], -1))


def test_every_place_is_equally_likely(addresses, rng):
    transform = TRANSFORMS.build("random_crop", size=32)
    padded = F.pad(addresses, [4])
    places = Counter()
    for _ in range(8100):
        crop = np.asarray(transform(addresses, rng))
        centre = crop[16, 16]
        left, top = int(centre[0]) + 3 - 16, int(centre[1]) + 3 - 16
        places[left, top] += 1
        if places.total() <= 50:
            np.testing.assert_array_equal(crop, np.asarray(F.crop(padded, top, left, 32, 32)))
    assert set(places) == {(x, y) for x in range(9) for y in range(9)}
    chi_square = sum((count - 100) ** 2 / 100 for count in places.values())
    assert chi_square < 129  # 99.96 % quantile for 80 degrees of freedom


@pytest.mark.parametrize("mode", ["constant", "reflect", "symmetric", "edge"])
def test_padding_is_torchvisions(mode, addresses, rng):
    config = {"name": "random_crop", "padding": 3, "mode": mode}
    ours = TRANSFORMS.build(config, size=38)(addresses, rng)
    theirs = F.pad(addresses, [3], padding_mode=mode)
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_no_room(photo, rng):
    transform = TRANSFORMS.build({"name": "random_crop", "padding": 0}, size=96)
    with pytest.raises(ConfigError, match=r"120x90 pixels .* no room for a view of 96"):
        transform(photo, rng)
