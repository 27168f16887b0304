import numpy as np
import pytest
import torchvision.transforms.transforms as tv
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from vissl_lite import TRANSFORMS, ConfigError

CONFIG = {
    "name": "random_affine",
    "degrees": 20,
    "translate": [0.2, 0.1],
    "scale": [0.7, 1.2],
    "shear": 15,
}


@pytest.fixture
def maps(monkeypatch):
    """The coefficients of every affine map that Pillow is asked for."""
    maps, transform = [], Image.Image.transform

    def recorded(image, size, method, data, *args, **kwargs):
        maps.append(tuple(data))
        return transform(image, size, method, data, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "transform", recorded)
    return maps


def test_pixels_and_coefficients_are_torchvisions(photo, rng, maps):
    transform = TRANSFORMS.build(CONFIG)
    u_N5 = rng.random((200, 5))
    for amounts, p in zip(
        transform.amounts(u_N5, *photo.size).tolist(), transform.parameters(u_N5, *photo.size)
    ):
        angle, *translate, shear, scale = amounts
        ours = transform.on_image(photo, p.tolist())
        theirs = F.affine(photo, angle, translate, scale, [shear, 0.0], InterpolationMode.BILINEAR)
        assert maps[-2] == maps[-1]
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_moments_are_torchvisions(rng):
    n, transform = 3000, TRANSFORMS.build(CONFIG)
    ours = transform.amounts(rng.random((n, 5)), 20, 30)[:, [0, 1, 2, 4, 3]]
    draws = [
        tv.RandomAffine.get_params([-20, 20], [0.2, 0.1], [0.7, 1.2], [-15, 15], [20, 30])
        for _ in range(n)
    ]
    theirs = np.array([(angle, *shift, scale, shear[0]) for angle, shift, scale, shear in draws])
    for power in (1, 2):  # two-sample z test per parameter, 4 standard errors
        a, b = ours**power, theirs**power
        z = (a.mean(0) - b.mean(0)) / np.sqrt((a.var(0) + b.var(0)) / n)
        assert np.abs(z).max() < 4
    np.testing.assert_allclose(np.abs(ours).max(0), np.abs(theirs).max(0), rtol=0.01)


def test_shift_beyond_the_image():
    with pytest.raises(ConfigError, match=r"translate\[1\]: 1.5 must be from 0 to 1"):
        TRANSFORMS.build({"name": "random_affine", "translate": [0.1, 1.5]})
