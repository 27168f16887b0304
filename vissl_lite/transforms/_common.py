"""What several transforms share: checks of their parameters, and the search for a random box."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from PIL.Image import Resampling
from torchvision.transforms import functional

from vissl_lite.errors import ConfigError

F: Any = functional  # annotated for tensors alone, though its functions take PIL images as well
Interpolation = Literal["nearest", "bilinear", "bicubic"]
TRIES = 10  # as in torchvision's RandomResizedCrop and RandomErasing


def resampling(interpolation: Interpolation) -> Resampling:
    return Resampling[interpolation.upper()]


def check_probability(p: float, where: str) -> None:
    if not 0 <= p <= 1:
        raise ConfigError(f"{where}: {p} is not a probability; choose a number from 0 to 1")


def check_range(
    bounds: Sequence[float], where: str, low: float = 0.0, high: float = math.inf
) -> None:
    """`bounds` are to be two numbers in ascending order, above `low` and not above `high`."""
    if not low < bounds[0] <= bounds[1] <= high:
        limit = f" and at most {high:g}" if high < math.inf else ""
        raise ConfigError(f"{where}: {list(bounds)} must ascend, above {low:g}{limit}")


def check_at_least(value: float, where: str, low: float = 0.0, high: float = math.inf) -> None:
    if not low <= value <= high:
        limit = f"from {low:g} to {high:g}" if high < math.inf else f"{low:g} or more"
        raise ConfigError(f"{where}: {value} must be {limit}")


def random_sides(
    uniforms: Sequence[float], area: int, scale: Sequence[float], ratio: Sequence[float]
) -> Iterator[tuple[int, int]]:
    """Sides of rectangles: area uniform in `scale` times `area`, log of their ratio uniform.

    Args:
        uniforms: numbers in [0, 1), two for each rectangle.
    """
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    for u_area, u_ratio in zip(uniforms[::2], uniforms[1::2]):
        a = area * (scale[0] + (scale[1] - scale[0]) * u_area)
        r = math.exp(log_low + (log_high - log_low) * u_ratio)
        yield round(math.sqrt(a * r)), round(math.sqrt(a / r))
