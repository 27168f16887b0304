from typing import Annotated

from torch import nn

from vissl_lite import HEADS
from vissl_lite.heads._mlp import Activation, Norm, mlp_layers
from vissl_lite.schema import at_least


@HEADS.register("mlp")
class MLP(nn.Sequential):
    """Projection: linear layers with batch norm and activation after each hidden one.

    [N, in_dim] -> [N, out_dim]. The defaults are the projection of SimCLR and SwAV on ResNet-50,
    2048-2048-128 (arXiv 2002.05709, section 4.2; 2006.09882, appendix A.1). Others:
    SEER-10B: hidden [8192, 8192], out_dim 256, norm none (2202.08360); BYOL: hidden [4096],
    out_dim 256 (2006.07733); VICReg: hidden [8192, 8192], out_dim 8192 (2105.04906).

    Args:
        hidden: widths of the hidden layers; empty for a single linear layer.
        out_dim: width of the output.
        norm: after each hidden layer.
        activation: after each hidden layer; `gelu` is the exact one.
        bias: of the linear layers.
        last_norm: batch norm without scale and shift after the output (SimSiam, MoCo v3).
    """

    def __init__(
        self,
        hidden: Annotated[tuple[int, ...], at_least(1)] = (2048,),
        out_dim: Annotated[int, at_least(1)] = 128,
        norm: Norm = "batch",
        activation: Activation = "relu",
        bias: bool = True,
        last_norm: bool = False,
        *,
        in_dim: int,
    ):
        super().__init__(*mlp_layers([in_dim, *hidden, out_dim], norm, activation, bias, last_norm))
        self.out_dim = out_dim
