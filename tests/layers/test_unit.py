import pytest
import torch
from torch import nn

from vissl_lite.layers.unit import Unit


class Layer(Unit):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def block(self, x):
        return torch.relu(self.linear(x))


def gradient(unit, crops):
    with torch.autocast("cpu", torch.bfloat16):
        loss = sum(y.float().square().sum() for y in unit(crops))
    unit.zero_grad()
    loss.backward()
    return unit.linear.weight.grad.clone()


@pytest.mark.parametrize("mode", ["none", "selective", "block"])
def test_one_graph_whatever_is_computed_again(mode):
    torch.manual_seed(0)
    unit, crops = Layer(), [torch.randn(n, 4, requires_grad=True) for n in (3, 2)]
    expected = gradient(unit, crops)
    unit.checkpointing = mode
    unit.compile(backend="aot_eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(gradient(unit, crops), expected, rtol=1e-2, atol=1e-3)
