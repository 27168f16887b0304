"""Stochastic depth."""

from torch import Tensor, nn


def drop_path(x: Tensor, rate: float) -> Tensor:
    """Sets each sample of a residual branch to 0 with probability `rate`, others to x / (1 - rate).

    Stochastic depth per sample (Huang et al. 2016, arXiv 1603.09382). x is [N, ...], 0 <= rate < 1.
    """
    kept = x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(1 - rate)
    return x * kept.div_(1 - rate)


class DropPath(nn.Module):
    """`drop_path` while training, the identity in evaluation or at rate 0."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return drop_path(x, self.rate) if self.training and self.rate > 0 else x
