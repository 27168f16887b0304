import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from vissl_lite.layers.drop_path import DropPath, drop_path
from vissl_lite.trunks.vit import ViT


def test_keeps_whole_samples_and_the_mean():
    x = torch.ones(20000, 2, 3)
    y = drop_path(x, torch.tensor(0.8))
    assert set(y.flatten().tolist()) == {0.0, 1.25}
    assert torch.equal(y, y[:, :1, :1].expand_as(y))
    assert abs(y.mean() - 1) < 0.02  # 5 standard errors are 0.018


def test_acts_in_training_only():
    x = torch.randn(8, 4)
    assert DropPath(0.5).eval()(x) is x
    assert DropPath(0.0).train()(x) is x
    assert (DropPath(0.5).train()(x) == 0).any()


def test_the_result_has_the_precision_of_the_branch():
    x = torch.ones(64, 4, dtype=torch.bfloat16)
    assert DropPath(0.5)(x).dtype == torch.bfloat16
    assert set(DropPath(0.5)(x).flatten().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("moved", ["to", "to_empty", "meta", "double", "copy"])
def test_the_rate_outlives_moves(moved):
    layer = {
        "to": lambda layer: layer.to("cpu"),
        "to_empty": lambda layer: layer.to_empty(device="cpu"),
        "meta": lambda layer: layer.to("meta").to_empty(device="cpu"),
        "double": lambda layer: layer.double(),
        "copy": copy.deepcopy,
    }[moved](DropPath(0.25))
    assert layer.keep.tolist() == 0.75
    assert not layer.state_dict()


def test_made_on_the_meta_device():
    with torch.device("meta"):
        layer = DropPath(0.25)
    assert layer.to_empty(device="cpu").keep.tolist() == 0.75


def test_blocks_of_all_rates_share_their_graphs():
    """One for the first block, whose rate is 0, and one for the rest."""
    trunk, graphs = ViT("tiny", 16, image_size=32, drop_path=0.1), CompileCounter()
    for block in trunk.blocks:
        block.compile(backend=graphs, fullgraph=True, dynamic=False)
    with torch.no_grad():
        trunk(torch.zeros(1, 3, 32, 32))
    assert graphs.frame_count == 2
