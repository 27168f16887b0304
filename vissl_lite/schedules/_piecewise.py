"""One schedule after another: what `composite` and `warmup` share."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Literal

from vissl_lite.schedules._length import position

Schedule = Callable[[float], float]
Scaling = Literal["rescaled", "fixed"]


def piecewise(
    parts: Sequence[Schedule], lengths: Sequence[int], scaling: Sequence[Scaling]
) -> Schedule:
    """Runs `parts[i]` for `lengths[i]` steps, one after the other.

    `rescaled`: the part runs from its own 0 to its own 1 within its length.
    `fixed`: the part sees the `where` of the whole training, so it starts part-way (VISSL).
    The first step of a part is the first that its schedule decides; a part of 0 steps is skipped.
    """
    starts = list(accumulate(lengths, initial=0))[:-1]
    total_steps = sum(lengths)

    def schedule(where: float) -> float:
        step = position(where, total_steps)
        i = bisect_right(starts, step) - 1
        if scaling[i] == "fixed":
            return parts[i](where)
        return parts[i]((step - starts[i]) / max(lengths[i], 1))

    return schedule
