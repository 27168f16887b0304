"""Legend: N rows, D columns of an embedding, K prototypes."""

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vissl_lite import HEADS
from vissl_lite.layers.precision import at_least_fp32, full_precision
from vissl_lite.schema import at_least


class UnitRows(nn.Linear):
    """K unit vectors, the rows of `weight`; products are at least fp32, autocast or not."""

    def __init__(self, dim: int, num_prototypes: int):
        super().__init__(dim, num_prototypes, bias=False)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.normalise()

    @torch.no_grad()
    def normalise(self) -> None:
        self.weight.copy_(F.normalize(self.weight, dim=1))

    def forward(self, z_ND: Tensor) -> Tensor:
        with full_precision(z_ND):
            return F.linear(at_least_fp32(z_ND), at_least_fp32(self.weight))


@HEADS.register("prototypes")
class Prototypes(nn.Module):
    """Cosines between normalised embeddings and learnt prototypes, a scorer (SwAV).

        c_k <- c_k / |c_k|  at the start and after every step;  score_nk = c_k . x_n / |x_n|

    [N, in_dim] -> one [N, K] per entry of `num_prototypes`, at least fp32, without bias
    (Caron et al. 2020, arXiv 2006.09882, section 3.1).

    Args:
        num_prototypes: K, or a list for several independent sets. 3000 is SwAV's for ImageNet-1k;
            SEER takes 16000.
    """

    scorer = True

    def __init__(
        self, num_prototypes: Annotated[int | list[int], at_least(1)] = 3000, *, in_dim: int
    ):
        super().__init__()
        counts = [num_prototypes] if isinstance(num_prototypes, int) else num_prototypes
        self.sets = nn.ModuleList(UnitRows(in_dim, count) for count in counts)
        self.out_dim = sum(counts)

    def scores(self, z_ND: Tensor) -> list[Tensor]:
        """Of rows that are normalised already, such as those of a queue; leading axes are kept."""
        return [prototypes(z_ND) for prototypes in self.sets]

    def forward(self, x_ND: Tensor) -> list[Tensor]:
        return self.scores(F.normalize(at_least_fp32(x_ND), dim=-1))

    def after_step(self) -> None:
        for prototypes in self.sets:
            prototypes.normalise()
