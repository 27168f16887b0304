from math import sqrt

import pytest
import torch
from torch import nn

from vissl_lite.layers.init import init_convnet_, init_transformer_


@pytest.mark.parametrize("groups", [1, 8])
def test_convolution_by_fan_out_without_groups(groups):
    conv = nn.Conv2d(256, 512, 3, groups=groups)
    init_convnet_(conv)
    assert conv.weight.std().item() == pytest.approx(sqrt(2 / (9 * 512)), rel=0.02)
    assert conv.weight.abs().max() > 3 * sqrt(2 / (9 * 512))  # normal, not uniform
    assert conv.bias.count_nonzero() == 0


def test_norm_starts_afresh():
    norm = nn.BatchNorm2d(4)
    norm(torch.randn(8, 4, 3, 3))
    nn.init.constant_(norm.weight, 5.0)
    init_convnet_(norm)
    torch.testing.assert_close(norm.state_dict(), nn.BatchNorm2d(4).state_dict(), rtol=0, atol=0)


def test_linear_layers_of_a_transformer():
    linear = nn.Linear(300, 400)
    init_transformer_(linear)
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert linear.bias.count_nonzero() == 0
