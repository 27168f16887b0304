import numpy as np
import pytest
from torchvision.transforms import InterpolationMode, v2

from vissl_lite import TRANSFORMS, ConfigError
from vissl_lite.transforms import random_rotation


@pytest.fixture
def angles(monkeypatch):
    angles, rotate = [], random_rotation.F.rotate

    def recorded(image, angle, *args, **kwargs):
        angles.append(angle)
        return rotate(image, angle, *args, **kwargs)

    monkeypatch.setattr(random_rotation.F, "rotate", recorded)
    return angles


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_pixels_are_torchvisions(interpolation, photo, rng, angles):
    config = {"name": "random_rotation", "interpolation": interpolation, "fill": 7}
    ours = TRANSFORMS.build(config)(photo, rng)
    theirs = v2.functional.rotate(photo, angles[0], InterpolationMode(interpolation), fill=7)
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_angles_are_uniform(photo, rng, angles):
    transform, pixel = (
        TRANSFORMS.build({"name": "random_rotation", "degrees": 30}),
        photo.resize((2, 2)),
    )
    for _ in range(2000):
        transform(pixel, rng)
    assert -30 <= min(angles) < -29.5 < 29.5 < max(angles) <= 30
    assert abs(np.mean(angles)) < 4 * 30 / np.sqrt(3 * 2000)


def test_degrees_beyond_half_a_turn():
    with pytest.raises(ConfigError, match=r"degrees: 200.0 must be from 0 to 180"):
        TRANSFORMS.build({"name": "random_rotation", "degrees": 200})
