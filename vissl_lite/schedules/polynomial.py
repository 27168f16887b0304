"""Polynomial decay."""

from fvcore.common.param_scheduler import PolynomialDecayParamScheduler

from vissl_lite import SCHEDULES
from vissl_lite.errors import ConfigError
from vissl_lite.schedules._piecewise import Schedule


@SCHEDULES.register("polynomial")
def polynomial(start: float = 1.0, end: float = 0.0, power: float = 1.0) -> Schedule:
    """Polynomial decay: value(where) = end + (start - end) * (1 - where) ** power.

    Args:
        start: value at the first step.
        end: value at where = 1.
        power: 1 is a straight line, 2 LARS's decay (You et al. 2017, arXiv 1708.03888, section 5).

    Raises:
        ConfigError: `power` is not positive.
    """
    if power <= 0:
        raise ConfigError(f"polynomial.power: {power} is not positive; write e.g. 2")
    decay = PolynomialDecayParamScheduler(start - end, power)
    return lambda where: end + decay(where)
