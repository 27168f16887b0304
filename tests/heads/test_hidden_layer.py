"""hidden_layer: the first layer of an mlp, by the same names."""

import pytest
import torch
from torch import nn

from vissl_lite.heads.hidden_layer import HiddenLayer
from vissl_lite.heads.mlp import MLP


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_is_the_beginning_of_an_mlp(norm, activation):
    mlp = MLP((7, 6), 4, norm, activation, bias=False, in_dim=5)
    head = HiddenLayer(7, norm, activation, bias=False, in_dim=5)
    names = list(head.state_dict())
    assert names == list(mlp.state_dict())[: len(names)]
    head.load_state_dict({name: mlp.state_dict()[name] for name in names})
    x_ND = torch.randn(9, 5)
    expected = nn.Sequential(*list(mlp)[: len(head)])(x_ND)
    assert torch.equal(head(x_ND), expected)
    assert head.out_dim == head(x_ND).shape[1] == 7
