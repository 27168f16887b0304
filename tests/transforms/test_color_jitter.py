from collections import Counter

import numpy as np
import pytest
import torchvision
from torchvision.transforms import v2

from vissl_lite import TRANSFORMS, ConfigError
from vissl_lite.transforms import color_jitter

NAMES = ("brightness", "contrast", "saturation", "hue")
THEIRS = [getattr(v2.functional, f"adjust_{name}") for name in NAMES]


@pytest.fixture
def calls(monkeypatch):
    """(operation, amount) of every operation applied, in order."""
    calls = []

    def recorded(k, operation):
        return lambda image, amount: (calls.append((k, amount)), operation(image, amount))[1]

    operations = tuple(recorded(k, f) for k, f in enumerate(color_jitter.OPERATIONS))
    monkeypatch.setattr(color_jitter, "OPERATIONS", operations)
    return calls


def test_pixels_are_torchvisions(photo, rng, calls):
    transform = TRANSFORMS.build({"name": "color_jitter", "p": 1.0})
    for _ in range(10):
        calls.clear()
        ours, theirs = transform(photo, rng), photo
        for k, amount in calls:
            theirs = THEIRS[k](theirs, amount)
        assert len(calls) == 4
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize(
    "strengths", [(0.8, 0.8, 0.8, 0.2), (0.4, 0.3, 0.2, 0.1), (1.5, 0.2, 1, 0.5)]
)
def test_parameters_reach_the_operations(strengths, photo, rng, calls):
    """VISSL's color distortion dropped brightness, contrast, saturation and hue of the config."""
    config = {"name": "color_jitter", "p": 1.0, **dict(zip(NAMES, strengths))}
    transform, pixel = TRANSFORMS.build(config), photo.resize((1, 1))
    theirs = torchvision.transforms.ColorJitter(*strengths)
    for _ in range(1000):
        transform(pixel, rng)
    for k, name in enumerate(NAMES):
        low, high = getattr(theirs, name)
        amounts = np.array([amount for j, amount in calls if j == k])
        assert len(amounts) == 1000
        assert low <= amounts.min() < low + 0.02 * (high - low)
        assert high >= amounts.max() > high - 0.02 * (high - low)
        deviation = (high - low) / np.sqrt(12)
        assert abs(amounts.mean() - (low + high) / 2) < 4 * deviation / np.sqrt(1000)
        assert abs(amounts.std() / deviation - 1) < 0.1


def test_all_orders_are_equally_likely(photo, rng, calls):
    transform, pixel = TRANSFORMS.build({"name": "color_jitter", "p": 1.0}), photo.resize((1, 1))
    orders = Counter()
    for _ in range(2400):
        calls.clear()
        transform(pixel, rng)
        orders[tuple(k for k, _ in calls)] += 1
    assert len(orders) == 24
    chi_square = sum((count - 100) ** 2 / 100 for count in orders.values())
    assert chi_square < 51  # 99.93 % quantile for 23 degrees of freedom


def test_probability_and_strength_zero(photo, rng, calls):
    config = {"name": "color_jitter", "contrast": 0.0, "hue": 0.0, "p": 0.8}
    transform, pixel = TRANSFORMS.build(config), photo.resize((1, 1))
    for _ in range(2000):
        transform(pixel, rng)
    assert {k for k, _ in calls} == {0, 2}
    assert abs(len(calls) / 2 / 2000 - 0.8) < 4 * np.sqrt(0.8 * 0.2 / 2000)


def test_hue_has_a_limit():
    with pytest.raises(ConfigError, match=r"hue: 0.6 must be from 0 to 0.5"):
        TRANSFORMS.build({"name": "color_jitter", "hue": 0.6})
