from typing import Annotated

from torch import nn

from vissl_lite import HEADS
from vissl_lite.heads._mlp import mlp_layers
from vissl_lite.schema import at_least


@HEADS.register("predictor")
class Predictor(nn.Sequential):
    """Predictor of BYOL and SimSiam: linear, batch norm, ReLU, linear, back to the input's width.

    [N, in_dim] -> [N, in_dim].

    Args:
        hidden: width in between. 4096 is BYOL's (Grill et al. 2020, arXiv 2006.07733,
            section 3.3); SimSiam takes a bottleneck of 512 (2011.10566, section 3).
    """

    student_only = True  # an EMA teacher goes without

    def __init__(self, hidden: Annotated[int, at_least(1)] = 4096, *, in_dim: int):
        super().__init__(
            *mlp_layers([in_dim, hidden, in_dim], "batch", "relu", bias=True, last_norm=False)
        )
        self.out_dim = in_dim
