import pytest

from vissl_lite import SCHEDULES, ConfigError


def test_equals_the_formula():
    schedule = SCHEDULES.build({"name": "exponential", "start": 2.0, "decay": 0.01})
    assert (schedule(0.0), schedule(0.5), schedule(1.0)) == pytest.approx(
        (2.0, 0.2, 0.02), abs=1e-12
    )


def test_decay_is_positive():
    with pytest.raises(ConfigError, match=r"schedule\.decay: 0\.0 is not positive"):
        SCHEDULES.build({"name": "exponential", "decay": 0})
