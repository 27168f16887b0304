import torch
from torchvision.ops import SqueezeExcitation as Torchvision

from vissl_lite.layers.squeeze_excitation import SqueezeExcitation


def test_is_torchvision():
    ours, theirs = SqueezeExcitation(12, 3).double(), Torchvision(12, 3).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 12, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)
