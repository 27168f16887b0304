"""A straight line."""

from fvcore.common.param_scheduler import LinearParamScheduler

from vissl_lite import SCHEDULES
from vissl_lite.schedules._piecewise import Schedule


@SCHEDULES.register("linear")
def linear(start: float = 1.0, end: float = 0.0) -> Schedule:
    """A straight line: value(where) = start + (end - start) * where.

    Args:
        start: value at the first step.
        end: value at where = 1, one step after the last.
    """
    return LinearParamScheduler(start, end)
