import numpy as np
import pytest
from torchvision.transforms import v2

from vissl_lite import TRANSFORMS, ConfigError


@pytest.mark.parametrize("threshold", [0, 100, 128, 256])
def test_pixels_are_torchvisions(threshold, photo, rng):
    config = {"name": "solarize", "p": 1.0, "threshold": threshold}
    ours = np.asarray(TRANSFORMS.build(config)(photo, rng))
    np.testing.assert_array_equal(ours, np.asarray(v2.functional.solarize(photo, threshold)))
    pixels = np.asarray(photo)
    np.testing.assert_array_equal(ours, np.where(pixels < threshold, pixels, 255 - pixels))


def test_threshold_is_not_random(photo, rng):
    """VISSL drew it from 0 to 256 for every image."""
    transform = TRANSFORMS.build({"name": "solarize", "p": 1.0})
    assert len({transform(photo, rng).tobytes() for _ in range(50)}) == 1


def test_probability(photo, rng):
    transform, small = TRANSFORMS.build("solarize"), photo.resize((8, 8))
    changed = [transform(small, rng).tobytes() != small.tobytes() for _ in range(2000)]
    assert abs(np.mean(changed) - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 2000)


def test_threshold_beyond_the_range():
    with pytest.raises(ConfigError, match="threshold: 300 must be from 0 to 256"):
        TRANSFORMS.build({"name": "solarize", "threshold": 300})
