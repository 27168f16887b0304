"""Stochastic depth."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def drop_path(x: Tensor, keep: Tensor) -> Tensor:
    """Multiplies each sample of a residual branch by 1 / keep with probability `keep`, else by 0.

    Stochastic depth per sample (Huang et al. 2016, arXiv 1603.09382). x is [N, ...], 0 < keep <= 1.
    """
    kept = torch.bernoulli(keep.expand(len(x), *[1] * (x.ndim - 1)))
    return x * (kept / keep).to(x.dtype)


class DropPath(nn.Module):
    """`drop_path` while training, the identity in evaluation or at rate 0.

    Attributes:
        keep: 1 - rate. As a number it would be part of a compiled graph, and every block would be
            compiled apart.
    """

    keep: Tensor

    def __init__(self, rate: float):
        super().__init__()
        self.rate, self.acts = rate, rate > 0
        self.register_buffer("keep", torch.tensor(1 - rate), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return drop_path(x, self.keep) if self.training and self.acts else x

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """As of any module; `to_empty` would lose the value."""
        super()._apply(fn, recurse)
        self.keep.fill_(1 - self.rate)
        return self
