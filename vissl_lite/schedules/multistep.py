"""Values that change at given milestones."""

from bisect import bisect_right
from itertools import pairwise

from vissl_lite import SCHEDULES
from vissl_lite.errors import ConfigError
from vissl_lite.schedules._length import fraction
from vissl_lite.schedules._piecewise import Schedule


@SCHEDULES.register("multistep")
def multistep(
    milestones: list[str | float],
    gamma: float = 0.1,
    values: list[float] | None = None,
    *,
    total_steps: int,
    steps_per_epoch: int,
) -> Schedule:
    """Steps down at milestones: values[i] from milestone i on; values[i] = gamma ** i by default.

    Behind a rescaled `warmup` the milestones count from the end of the warm-up; with
    `scaling: fixed` from the start of the training, as in Goyal et al. 2017 (arXiv 1706.02677).

    Args:
        milestones: rising lengths from the start: ["30 epochs", "60 epochs"], steps or fractions.
        gamma: factor at each milestone, 0.1 in the ImageNet recipes; unused when `values` is given.
        values: one value more than there are milestones.

    Raises:
        ConfigError: the milestones do not rise, lie beyond the training, or do not fit `values`.
    """
    places = [f"multistep.milestones[{i}]" for i in range(len(milestones))]
    at = [
        fraction(length, total_steps, steps_per_epoch, place=place)
        for length, place in zip(milestones, places)
    ]
    if any(early >= late for early, late in pairwise(at)):
        raise ConfigError(f"multistep.milestones: {milestones} do not rise; sort them")
    if values is None:
        values = [gamma**i for i in range(len(milestones) + 1)]
    if len(values) != len(milestones) + 1:
        raise ConfigError(
            f"multistep.values: {len(values)} values for {len(milestones)} milestones; "
            "give one value more than there are milestones"
        )
    return lambda where: values[bisect_right(at, where)]
