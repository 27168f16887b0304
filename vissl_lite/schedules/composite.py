"""Schedules one after another."""

import math
from typing import Annotated

from vissl_lite import SCHEDULES
from vissl_lite.errors import ConfigError
from vissl_lite.schedules._length import exact_steps
from vissl_lite.schedules._piecewise import Scaling, Schedule, piecewise


@SCHEDULES.register("composite")
def composite(
    schedules: Annotated[list, SCHEDULES],
    lengths: list[str | float],
    scaling: list[Scaling] | None = None,
    *,
    total_steps: int,
    steps_per_epoch: int,
) -> Schedule:
    """Schedules one after another, each for its length.

    VISSL's composite schedule with lengths in any unit and changes at exact steps. Lengths within a
    rescaled part refer to that part: its "10 epochs" are its own first ten.

    Args:
        schedules: configs of the parts.
        lengths: one per part: "10 epochs", "500 steps", a fraction of all steps, or once "rest".
            Together they are the training; rounding (0.1 % as in fvcore) goes to the last part.
        scaling: per part, `rescaled` (default) runs it from its start to its end within its length;
            `fixed` shows it the position in the whole training. VISSL's recipes have
            [rescaled, fixed], which begins a cosine already decayed: 4.7926 instead of 4.8 after a
            warm-up of 2.5 %.

    Raises:
        ConfigError: the numbers of entries differ, or the lengths do not make up the training.
    """
    scalings: list[Scaling] = scaling or ["rescaled"] * len(schedules)
    if not len(schedules) == len(lengths) == len(scalings) > 0:
        raise ConfigError(
            f"composite: {len(schedules)} schedules, {len(lengths)} lengths and {len(scalings)} "
            "scalings; give one of each per part"
        )
    steps = _all_steps(lengths, total_steps, steps_per_epoch)
    spans = [total_steps if s == "fixed" else n for s, n in zip(scalings, steps)]
    parts = [
        SCHEDULES.build(
            config,
            f"composite.schedules[{i}]",
            total_steps=max(span, 1),
            steps_per_epoch=steps_per_epoch,
        )
        for i, (config, span) in enumerate(zip(schedules, spans))
    ]
    return piecewise(parts, steps, scalings)


def _all_steps(lengths: list[str | float], total_steps: int, steps_per_epoch: int) -> list[int]:
    """Whole steps of every part; what is missing to `total_steps` goes to "rest" or the last."""
    rest = [i for i, length in enumerate(lengths) if length == "rest"]
    exact = [
        0.0
        if i in rest
        else exact_steps(length, total_steps, steps_per_epoch, place=f"composite.lengths[{i}]")
        for i, length in enumerate(lengths)
    ]
    missing = total_steps - sum(exact)
    if len(rest) > 1 or not (missing >= 0 if rest else abs(missing) <= total_steps / 1000):
        raise ConfigError(
            f"composite.lengths: {lengths} are {sum(exact):,.10g} of {total_steps:,} steps; make "
            "one of them 'rest', and only one"
        )
    steps = [math.floor(n + 0.5) for n in exact]
    steps[rest[0] if rest else -1] += total_steps - sum(steps)
    return steps
