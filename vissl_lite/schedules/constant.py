"""A value that never changes."""

from vissl_lite import SCHEDULES
from vissl_lite.schedules._piecewise import Schedule


@SCHEDULES.register("constant")
def constant(value: float = 1.0) -> Schedule:
    """The same value at every step: value(where) = value.

    Unlike fvcore's ConstantParamScheduler it is also defined at where = 1.

    Args:
        value: 1.0 leaves the learning rate at its scaled base.
    """
    return lambda where: value
