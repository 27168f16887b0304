import numpy as np
import pytest
from torchvision.transforms import v2

from vissl_lite import TRANSFORMS, ConfigError


@pytest.mark.parametrize("bits", range(1, 9))
def test_pixels_are_torchvisions(bits, photo, rng):
    config = {"name": "posterize", "p": 1.0, "bits": bits}
    ours = np.asarray(TRANSFORMS.build(config)(photo, rng))
    np.testing.assert_array_equal(ours, np.asarray(v2.functional.posterize(photo, bits)))
    step = 2 ** (8 - bits)
    np.testing.assert_array_equal(ours, np.asarray(photo) // step * step)


def test_probability(photo, rng):
    transform, small = TRANSFORMS.build({"name": "posterize", "p": 0.3}), photo.resize((8, 8))
    changed = [transform(small, rng).tobytes() != small.tobytes() for _ in range(2000)]
    assert abs(np.mean(changed) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 2000)


def test_no_bits():
    with pytest.raises(ConfigError, match="bits: 0 must be from 1 to 8"):
        TRANSFORMS.build({"name": "posterize", "bits": 0})
