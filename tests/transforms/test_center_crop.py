import numpy as np
import pytest
from torchvision.transforms import v2

from vissl_lite import TRANSFORMS


@pytest.mark.parametrize("size", [32, 91, 200])
def test_pixels_are_torchvisions(size, photo, rng):
    ours = TRANSFORMS.build("center_crop", size=size)(photo, rng)
    np.testing.assert_array_equal(
        np.asarray(ours), np.asarray(v2.functional.center_crop(photo, [size, size]))
    )


def test_middle(photo, rng):
    pixels = np.asarray(photo)[45 - 16 : 45 + 16, 60 - 16 : 60 + 16]
    np.testing.assert_array_equal(TRANSFORMS.build("center_crop", size=32)(photo, rng), pixels)
