import pytest
import torch
from torch import nn

from vissl_lite import HEADS
from vissl_lite.heads.mlp import MLP


def kinds(head):
    return [type(layer).__name__ for layer in head]


def widths(head):
    return [(m.in_features, m.out_features) for m in head if isinstance(m, nn.Linear)]


def test_defaults_are_the_projection_of_simclr_and_swav():
    head = MLP(in_dim=2048)
    assert widths(head) == [(2048, 2048), (2048, 128)]
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert head.out_dim == 128


def test_the_seer_head_has_no_norm():
    with torch.device("meta"):
        head = MLP([8192, 8192], 256, norm="none", in_dim=7392)
    assert widths(head) == [(7392, 8192), (8192, 8192), (8192, 256)]
    assert sum(p.numel() for p in head.parameters()) == 129_777_920
    assert kinds(head) == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]


def test_keys_are_those_of_the_swav_checkpoints():
    keys = {key.partition(".")[0] for key in MLP(in_dim=4).state_dict()}
    assert keys == {"0", "1", "3"}  # projection_head.{0,1,3}


def test_output_equals_the_layers_by_hand():
    x, head = torch.randn(6, 4), MLP([3], 2, activation="gelu", in_dim=4)
    hidden = x @ head[0].weight.T + head[0].bias
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(head(x), hidden @ head[3].weight.T + head[3].bias)


def test_last_norm_standardises_and_learns_nothing():
    head = MLP([3], 2, last_norm=True, in_dim=4)
    y = head(torch.randn(64, 4))
    torch.testing.assert_close(y.mean(0), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(y.var(0, unbiased=False), torch.ones(2), rtol=0, atol=1e-3)
    assert not list(head[-1].parameters())


def test_without_bias_or_hidden_layers():
    head = HEADS.build({"name": "mlp", "hidden": [], "out_dim": 2, "bias": False}, in_dim=4)
    assert [tuple(p.shape) for p in head.parameters()] == [(2, 4)]


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_gradients_flow(norm):
    head = MLP([3], 2, norm=norm, in_dim=4)
    head(torch.randn(6, 4)).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())
