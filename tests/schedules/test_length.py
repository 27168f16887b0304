import pytest

from vissl_lite import ConfigError
from vissl_lite.schedules._length import fraction, position, to_steps


@pytest.mark.parametrize(
    ("length", "steps"),
    [
        ("10 epochs", 70), ("1 epoch", 7), ("2.5 epochs", 18), ("500 steps", 500), ("1 step", 1),
        (0.1, 101), ("0.1", 101), ("1e-1", 101), (0, 0), (0.0, 0), (1, 1005), (1.0, 1005),
    ],
)  # fmt: skip
def test_steps(length, steps):
    assert to_steps(length, total_steps=1005, steps_per_epoch=7) == steps


@pytest.mark.parametrize(
    "length", ["10 epoch", "10epochs", "-1 epochs", "epochs", "rest", "", 1.5, -0.1, 500, "nan"]
)
def test_what_is_no_length(length):
    with pytest.raises(ConfigError, match=r"warmup\.length: .* is not a length; write '10 epochs'"):
        to_steps(length, 1000, 10, place="warmup.length")


def test_longer_than_the_training():
    with pytest.raises(ConfigError) as error:
        to_steps("10 epochs", total_steps=90, steps_per_epoch=10)
    assert str(error.value) == (
        "length: '10 epochs' are 100 steps but the training has 90 (10 per epoch); "
        "shorten it, or train longer"
    )


def test_fraction_equals_where_and_position_inverts_it():
    for total in (7, 49, 1005, 122_071, 2_999_999):
        for step in {0, 1, total // 3, total - 1, total}:
            assert fraction(f"{step} steps", total, 5) == step / total
            assert position(step / total, total) == step
    assert position(0.25, 10) == 2.5
