"""The mesh of a strategy, on two processes."""

import torch
import torch.distributed as dist
from distributed import run_ranks

from vissl_lite.layers.norm import _subgroup
from vissl_lite.parallel.mesh import make_mesh

CPU = torch.device("cpu")


def timeouts(rank, world):
    """Seconds of all processes, of both dimensions of a mesh, and of a group of BatchNorm."""
    mesh = make_mesh("hsdp", 1, CPU)
    _subgroup(2)
    groups = [dist.group.WORLD, *mesh.get_all_groups(), *dist.distributed_c10d._world.pg_map]
    return {group._get_backend(CPU).options._timeout.total_seconds() for group in groups}


def test_every_group_waits_as_long_as_all_processes():
    """PyTorch gives subgroups a timeout of its own: 10 minutes on NCCL, whatever the first has."""
    everyone, other = run_ranks(timeouts, 2)
    assert everyone == other
    assert len(everyone) == 1
