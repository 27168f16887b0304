import numpy as np
import pytest
import torchvision.transforms.transforms as tv
from torchvision.transforms import v2

from vissl_lite import TRANSFORMS, ConfigError
from vissl_lite.transforms import random_affine

CONFIG = {
    "name": "random_affine",
    "degrees": 20,
    "translate": [0.2, 0.1],
    "scale": [0.7, 1.2],
    "shear": 15,
}


@pytest.fixture
def drawn(monkeypatch):
    drawn, affine = [], random_affine.F.affine

    def recorded(image, **parameters):
        drawn.append(parameters)
        return affine(image, **parameters)

    monkeypatch.setattr(random_affine.F, "affine", recorded)
    return drawn


def test_pixels_are_torchvisions(photo, rng, drawn):
    transform = TRANSFORMS.build(CONFIG)
    for _ in range(5):
        ours = transform(photo, rng)
        theirs = v2.functional.affine(photo, **drawn[-1])
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_moments_are_torchvisions(photo, rng, drawn):
    n, transform, small = 3000, TRANSFORMS.build(CONFIG), photo.resize((20, 30))
    for _ in range(n):
        transform(small, rng)
    ours = np.array([(d["angle"], *d["translate"], d["scale"], d["shear"][0]) for d in drawn])
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
