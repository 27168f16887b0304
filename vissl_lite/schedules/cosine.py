"""Half a cosine wave."""

from fvcore.common.param_scheduler import CosineParamScheduler

from vissl_lite import SCHEDULES
from vissl_lite.schedules._piecewise import Schedule


@SCHEDULES.register("cosine")
def cosine(start: float = 1.0, end: float = 0.0) -> Schedule:
    """Half a cosine wave: value(where) = end + (start - end) / 2 * (1 + cos(pi * where)).

    SGDR without restarts (Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5). It also rises:
    DINO's weight decay is `{name: cosine, start: 0.04, end: 0.4}`.

    Args:
        start: value at the first step.
        end: value at where = 1; SwAV and SEER end the learning rate at 0.001 of its peak.
    """
    return CosineParamScheduler(start, end)
