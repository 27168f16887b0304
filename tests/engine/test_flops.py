"""Counted operations agree with published ones."""

import pytest
import torch

from vissl_lite import TRUNKS
from vissl_lite.engine.flops import training_flops
from vissl_lite.model import SSLModel
from vissl_lite.plugins import load_entries

load_entries()


@pytest.mark.parametrize(
    ("trunk", "gmac"),
    [({"name": "resnet", "depth": 50}, 4.09), ({"name": "regnet", "preset": "y_16gf"}, 15.91)],
)
def test_of_a_training_step(trunk, gmac):
    """GMAC at 224 px from torchvision's tables; a step is 3 forward passes of 2 FLOP per MAC."""
    with torch.device("meta"):
        model = SSLModel(TRUNKS.build(trunk), mean=[0.5] * 3, std=[0.5] * 3)
        views = [torch.empty(2, 3, 224, 224, 3, dtype=torch.uint8)]  # 2 crops of 3 images
    assert training_flops(model, views) == pytest.approx(2 * 3 * 2 * gmac * 1e9, rel=0.01)
