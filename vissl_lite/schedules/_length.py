"""Lengths of a schedule's phases: "10 epochs", "500 steps", or a fraction of all steps."""

import math
import re

from vissl_lite.errors import ConfigError

Length = str | float

_TIMED = re.compile(r"(?P<one>1) (epoch|step)|(?P<number>\d+(\.\d+)?) (epochs|steps)")


def to_steps(
    length: Length, total_steps: int, steps_per_epoch: int, *, place: str = "length"
) -> int:
    """The whole number of optimizer steps that `length` stands for, halves rounded up.

    A phase therefore always ends on a step: 0.1 of 1,005 steps are 101 steps.

    Args:
        length: "10 epochs", "2.5 epochs", "500 steps", or a fraction of `total_steps` in [0, 1].
        place: what an error message calls the setting.

    Raises:
        ConfigError: `length` has another form or exceeds `total_steps`.
    """
    return math.floor(exact_steps(length, total_steps, steps_per_epoch, place=place) + 0.5)


def exact_steps(
    length: Length, total_steps: int, steps_per_epoch: int, *, place: str = "length"
) -> float:
    """`to_steps` before rounding."""
    steps = _parse(length, total_steps, steps_per_epoch)
    if steps is None:
        raise ConfigError(
            f"{place}: {length!r} is not a length; write '10 epochs', '500 steps' or a fraction of "
            "the training such as 0.1"
        )
    if steps > total_steps:
        raise ConfigError(
            f"{place}: {length!r} are {steps:,.10g} steps but the training has {total_steps:,} "
            f"({steps_per_epoch:,} per epoch); shorten it, or train longer"
        )
    return steps


def fraction(
    length: Length, total_steps: int, steps_per_epoch: int, *, place: str = "length"
) -> float:
    """`to_steps` over `total_steps`: equals `where` bit for bit at the step that ends `length`."""
    return to_steps(length, total_steps, steps_per_epoch, place=place) / total_steps


def position(where: float, total_steps: int) -> float:
    """`where * total_steps`, exactly the whole number k when `where` is k / total_steps."""
    steps = where * total_steps
    return round(steps) if math.isclose(steps, round(steps), abs_tol=1e-6) else steps


def _parse(length: Length, total_steps: int, steps_per_epoch: int) -> float | None:
    timed = _TIMED.fullmatch(length.strip()) if isinstance(length, str) else None
    if timed:
        number = float(timed["one"] or timed["number"])
        return number * (steps_per_epoch if "epoch" in timed[0] else 1)
    try:
        share = float(length)
    except ValueError:
        return None
    return share * total_steps if 0 <= share <= 1 else None
