"""The scale of fp16: where it lives, and that processes agree on the steps to leave out."""

from itertools import product

import torch
from torch import nn
from torch.distributed.tensor import DeviceMesh, Shard, distribute_tensor

from vissl_lite.engine.scaler import Scaler
from vissl_lite.parallel.shards import whole


def test_the_scale_of_fp16_lives_with_the_gradients():
    """The loss, on another device, comes later; meta stands for the GPU."""
    p = torch.nn.Parameter(torch.ones(2))
    scaler, optimizer = Scaler(True, p.device), torch.optim.SGD([p], lr=1.0)
    assert scaler.scale(torch.ones((), device="meta")).device.type == "meta"
    p.grad = torch.full((2,), 0.25 * scaler.get_scale())
    scaler.step(optimizer)
    scaler.update()
    assert p.tolist() == [0.75, 0.75]


def leave_out(rank, world, where, on_all):
    """A plain parameter, two on meshes of their own; one process, or all, have an infinity once."""
    one, other = (DeviceMesh("cpu", [0, 1], mesh_dim_names=(name,)) for name in ("a", "b"))
    values = torch.arange(4.0)
    parameters = {
        "plain": nn.Parameter(values.clone()),
        "one": nn.Parameter(distribute_tensor(values, one, [Shard(0)])),
        "other": nn.Parameter(distribute_tensor(values, other, [Shard(0)])),
    }
    optimizer = torch.optim.SGD(parameters.values(), lr=1.0)
    scaler = Scaler(True, torch.device("cpu"), init_scale=16.0)
    found = []
    for infinite in (True, False):
        for name, p in parameters.items():
            p.grad = torch.ones_like(p) * scaler.get_scale()
            if infinite and name == where and (rank == 1 or on_all):
                grad = p.grad if name == "plain" else p.grad.to_local()
                grad[-1] = torch.inf
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        found.append([scaler.get_scale(), *(whole(p).tolist() for p in parameters.values())])
    return found


def test_all_processes_leave_out_a_step_that_is_not_finite_on_one(ranks):
    for where, on_all in product(("plain", "one", "other"), (False, True)):
        for left_out, done in ranks(2)(leave_out, where, on_all):
            assert left_out == [8.0, *3 * [[0.0, 1.0, 2.0, 3.0]]]
            assert done == [8.0, *3 * [[-1.0, 0.0, 1.0, 2.0]]]


def step_fused(rank, world):
    p = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([p], lr=1.0, fused=True)
    scaler = Scaler(True, torch.device("cpu"))
    p.grad = torch.full((2,), torch.inf)
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    return p.tolist()


def test_a_fused_optimizer_leaves_out_what_is_infinite_on_all(ranks):
    assert ranks(2)(step_fused) == [[1.0, 1.0], [1.0, 1.0]]
