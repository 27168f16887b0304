"""A linear rise, then another schedule."""

from typing import Annotated, Any

from vissl_lite import SCHEDULES
from vissl_lite.schedules._length import to_steps
from vissl_lite.schedules._piecewise import Scaling, Schedule, piecewise
from vissl_lite.schedules.linear import linear


@SCHEDULES.register("warmup")
def warmup(
    length: str | float,
    start: float = 0.0,
    then: Annotated[Any, SCHEDULES] = "cosine",
    scaling: Scaling = "rescaled",
    *,
    total_steps: int,
    steps_per_epoch: int,
) -> Schedule:
    """A linear rise from `start` to the first value of `then`, then `then` over the rest.

    With W = steps of `length`, step t < W has start + (then(0) - start) * t / W, and step W is the
    first of `then` (Goyal et al. 2017, arXiv 1706.02677, section 2.2). The official SwAV code
    divides by W - 1, so it is ahead by at most (then(0) - start) / W during the rise and equal
    after it.

    Args:
        length: "10 epochs", "500 steps" or a fraction of all steps.
        start: value at step 0; for the learning rate a factor (SwAV: 0.3 / 4.8 = 0.0625).
        then: config of the schedule that follows; its first value is the peak.
        scaling: `rescaled` runs `then` from its start to its end over the remaining steps; `fixed`
            shows it the position in the whole training (VISSL's cosines; milestones that count
            from step 0), and the rise ends at the value that `then` has there.

    Raises:
        ConfigError: `length` is not understood or longer than the training.
    """
    rise = to_steps(length, total_steps, steps_per_epoch, place="warmup.length")
    rest = total_steps - rise
    span = rest if scaling == "rescaled" else total_steps
    after = SCHEDULES.build(
        then, "warmup.then", total_steps=max(span, 1), steps_per_epoch=steps_per_epoch
    )
    peak = after(0.0 if scaling == "rescaled" else rise / total_steps)
    return piecewise([linear(start, peak), after], [rise, rest], ["rescaled", scaling])
