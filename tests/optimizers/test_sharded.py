"""Sharded optimizers against whole ones: 2 processes, FSDP2 on CPU, float64."""

import copy

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from vissl_lite import OPTIMIZERS
from vissl_lite.optimizers import adamw, larc, lars, sgd  # noqa: F401


def train(model: nn.Module, config: dict, x: torch.Tensor) -> nn.Module:
    groups = [{"params": [p], "weight_decay": 0.05, "lr": 0.3} for p in model.parameters()]
    optimizer = OPTIMIZERS.build(config, params=groups)
    for _ in range(3):
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def largest_difference(rank: int, world: int, name: str) -> float:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    x_ND = torch.randn(8, 5, dtype=torch.float64)
    whole = train(copy.deepcopy(model), {"name": name}, x_ND)
    mesh = init_device_mesh("cpu", (world,))
    sharded = train(fully_shard(copy.deepcopy(model), mesh=mesh), {"name": name}, x_ND)
    pairs = zip(sharded.parameters(), whole.parameters())
    return max((got.full_tensor() - want).abs().max().item() for got, want in pairs)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars", "larc"])
def test_two_shards_step_like_one_tensor(name, ranks):
    """7 rows on 2 processes are uneven shards; the biases leave 4 + 3 and 2 + 1 values."""
    assert max(ranks(2)(largest_difference, name)) < 1e-12
