"""What several transforms share: checks of their parameters, and the search for a random box.

Shape suffixes: N images, D uniforms, M images whose search goes on.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL.Image import Resampling
from torch import Tensor
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


def vector(values: Sequence[float], like: Tensor) -> Tensor:
    """Numbers on the device of another tensor; its `new_tensor` would wait for a GPU."""
    return torch.stack([like.new_full((), value) for value in values])


def elementwise(function: Callable[[float], float], x_N: np.ndarray) -> np.ndarray:
    """`function` of Python's `math` for each number.

    NumPy's own exp or cos may differ in the last bit, from Python's and from processor to
    processor; what happens to an image must not depend on how many are drawn at once.
    """
    return np.array([function(x) for x in x_N.tolist()])


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


def fitting_sides(
    u_ND: np.ndarray,
    area: int,
    scale: Sequence[float],
    ratio: Sequence[float],
    limits: tuple[int, int],
) -> np.ndarray:
    """[N, 2]: for each row the first of its `random_sides` from 1 to `limits`, or zeros.

    Each row is bit for bit what `random_sides` gives for it.
    """
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    sides_N2, open_M = np.zeros((len(u_ND), 2)), np.arange(len(u_ND))
    for k in range(0, u_ND.shape[1], 2):
        a_M = area * (scale[0] + (scale[1] - scale[0]) * u_ND[open_M, k])
        r_M = elementwise(math.exp, log_low + (log_high - log_low) * u_ND[open_M, k + 1])
        tried_M2 = np.rint(np.sqrt(np.stack([a_M * r_M, a_M / r_M], -1)))
        fits_M = ((tried_M2 > 0) & (tried_M2 <= limits)).all(-1)
        sides_N2[open_M[fits_M]] = tried_M2[fits_M]
        open_M = open_M[~fits_M]
        if not len(open_M):
            break
    return sides_N2
