import pytest

from vissl_lite import SCHEDULES, ConfigError


def test_equals_the_formula():
    schedule = SCHEDULES.build({"name": "polynomial", "start": 2.0, "end": 0.4, "power": 2})
    for t in range(11):
        assert schedule(t / 10) == pytest.approx(0.4 + 1.6 * (1 - t / 10) ** 2, abs=1e-12)


def test_power_is_positive():
    with pytest.raises(ConfigError, match=r"schedule\.power: 0\.0 is not positive"):
        SCHEDULES.build({"name": "polynomial", "power": 0})
