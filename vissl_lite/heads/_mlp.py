"""Linear, batch norm, activation, again: what `mlp` and `predictor` are made of."""

from itertools import pairwise
from typing import Literal

from torch import nn

from vissl_lite.layers.norm import BatchNorm1d

Norm = Literal["batch", "none"]
Activation = Literal["relu", "gelu"]
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}


def mlp_layers(
    dims: list[int], norm: Norm, activation: Activation, bias: bool, last_norm: bool
) -> list[nn.Module]:
    """dims[0] -> dims[1] -> ... -> dims[-1], with norm and activation after each hidden layer.

    `last_norm` adds a batch norm without scale and shift after the output (SimSiam, MoCo v3).
    """
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(dims[:-1]):
        layers.append(nn.Linear(width_in, width_out, bias=bias))
        layers += [BatchNorm1d(width_out)] if norm == "batch" else []
        layers.append(ACTIVATIONS[activation]())
    layers.append(nn.Linear(dims[-2], dims[-1], bias=bias))
    return layers + ([BatchNorm1d(dims[-1], affine=False)] if last_norm else [])
