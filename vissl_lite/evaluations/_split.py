"""Images that choose a hyper-parameter, apart from those that are trained on."""

import torch
from torch import Tensor

from vissl_lite.errors import ConfigError


def split(size: int, held_out: float, seed: int, place: str) -> tuple[Tensor, Tensor]:
    """Two disjoint random sets of row numbers: the images to train on, and those held out.

    Args:
        place: the key of `held_out` in the config, for the message.

    Raises:
        ConfigError: one of the sets is empty.
    """
    count = round(held_out * size)
    if not 0 < count < size:
        raise ConfigError(
            f"{place}: {held_out:g} of {size} train images are {count}; both sides need images"
        )
    rows = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return rows[count:], rows[:count]
