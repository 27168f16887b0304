from typing import Annotated

from torch import nn

from vissl_lite import HEADS
from vissl_lite.heads._mlp import Activation, Norm, mlp_layers
from vissl_lite.schema import at_least


@HEADS.register("hidden_layer")
class HiddenLayer(nn.Sequential):
    """A hidden layer by itself: linear, batch norm, activation; to fine-tune from inside a head.

    [N, in_dim] -> [N, out_dim]. Its tensors are named as those of the first layer of an `mlp`, from
    which `init` fills it: SimCLR v2 fine-tunes from there (Chen et al. 2020, arXiv 2006.10029,
    section 2), and so did VISSL for SEER, whose heads have no norm: there the linear layer is
    filled, and the norm starts from scratch.

    Args:
        out_dim: width; the default is that of SwAV and SimCLR on ResNet-50, as in `mlp`.
        norm, activation, bias: as in the `mlp` that it comes from.
    """

    def __init__(
        self,
        out_dim: Annotated[int, at_least(1)] = 2048,
        norm: Norm = "batch",
        activation: Activation = "relu",
        bias: bool = True,
        *,
        in_dim: int,
    ):
        super().__init__(*mlp_layers([in_dim, out_dim, 1], norm, activation, bias, False)[:-1])
        self.out_dim = out_dim
