"""Exponential decay."""

from fvcore.common.param_scheduler import ExponentialParamScheduler

from vissl_lite import SCHEDULES
from vissl_lite.errors import ConfigError
from vissl_lite.schedules._piecewise import Schedule


@SCHEDULES.register("exponential")
def exponential(start: float = 1.0, decay: float = 0.01) -> Schedule:
    """Exponential decay: value(where) = start * decay ** where.

    Args:
        start: value at the first step.
        decay: ratio of the value at where = 1 to that at the start, positive.

    Raises:
        ConfigError: `decay` is not positive.
    """
    if decay <= 0:
        raise ConfigError(f"exponential.decay: {decay} is not positive; write e.g. 0.01")
    return ExponentialParamScheduler(start, decay)
