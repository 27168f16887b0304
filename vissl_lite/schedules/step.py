"""Equally spaced steps."""

from vissl_lite import SCHEDULES
from vissl_lite.errors import ConfigError
from vissl_lite.schedules._length import position
from vissl_lite.schedules._piecewise import Schedule


@SCHEDULES.register("step")
def step(
    num_decays: int = 10, gamma: float = 0.5, start: float = 1.0, *, total_steps: int
) -> Schedule:
    """Equally spaced steps: value(where) = start * gamma ** floor(where * (num_decays + 1)).

    The defaults are those of hashtag pre-training, 10 to 20 halvings (Mahajan et al. 2018,
    arXiv 1805.00932, section 2.3).

    Args:
        num_decays: how often the value changes; the training has num_decays + 1 equal parts.
        gamma: factor at each change.
        start: value of the first part.

    Raises:
        ConfigError: `num_decays` is negative.
    """
    if num_decays < 0:
        raise ConfigError(f"step.num_decays: {num_decays} is negative; write 0 or more")

    def schedule(where: float) -> float:
        part = position(where, total_steps) * (num_decays + 1) // total_steps
        return start * gamma ** min(int(part), num_decays)

    return schedule
