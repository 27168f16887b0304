import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from vissl_lite import TRANSFORMS, ConfigError


@pytest.fixture
def maps(monkeypatch):
    """The coefficients of every affine map that Pillow is asked for."""
    maps, transform = [], Image.Image.transform

    def recorded(image, size, method, data, *args, **kwargs):
        maps.append(tuple(data))
        return transform(image, size, method, data, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "transform", recorded)
    return maps


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_pixels_and_coefficients_are_torchvisions(interpolation, photo, rng, maps):
    config = {"name": "random_rotation", "degrees": 180, "interpolation": interpolation, "fill": 7}
    transform, mode = TRANSFORMS.build(config), InterpolationMode(interpolation)
    u_N1 = rng.random((200, 1))
    for u, p in zip(u_N1[:, 0].tolist(), transform.parameters(u_N1, *photo.size).tolist()):
        ours = transform.on_image(photo, p)
        theirs = v2.functional.rotate(photo, 180.0 * (2 * u - 1), mode, fill=7)
        assert maps[-2] == maps[-1]
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize("degrees", [0, 180])
def test_turns_for_which_pillow_has_shortcuts(degrees, photo):
    transform = TRANSFORMS.build({"name": "random_rotation", "degrees": degrees})
    ours = transform.on_image(photo, transform.parameters(np.zeros((1, 1)), *photo.size)[0])
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(photo.rotate(degrees)))


def test_angles_are_uniform(rng):
    transform = TRANSFORMS.build({"name": "random_rotation", "degrees": 30})
    cos, sin = transform.parameters(rng.random((2000, 1)), 2, 2)[:, :2].T
    angles = -np.degrees(np.arctan2(sin, cos))
    assert -30 <= angles.min() < -29.5 < 29.5 < angles.max() <= 30
    assert abs(angles.mean()) < 4 * 30 / np.sqrt(3 * 2000)


def test_degrees_beyond_half_a_turn():
    with pytest.raises(ConfigError, match=r"degrees: 200.0 must be from 0 to 180"):
        TRANSFORMS.build({"name": "random_rotation", "degrees": 200})
