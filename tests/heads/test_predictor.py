import torch
from torch import nn

from vissl_lite.heads.predictor import Predictor


def test_is_the_predictor_of_byol():
    head = Predictor(in_dim=256)
    assert sum(p.numel() for p in head.parameters()) == 2_109_696  # 256-4096-256
    assert head.out_dim == 256
    assert isinstance(head[2], nn.ReLU)


def test_keeps_the_width_and_normalises_the_hidden_layer():
    head = Predictor(hidden=3, in_dim=4)
    assert head(torch.randn(8, 4)).shape == (8, 4)
    hidden = head[1](head[0](torch.randn(64, 4)))
    torch.testing.assert_close(hidden.mean(0), torch.zeros(3), rtol=0, atol=1e-6)
