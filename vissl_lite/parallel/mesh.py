"""How processes are arranged: copies of the model (replicate) x pieces of it (shard)."""

import os
from typing import Literal

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from vissl_lite.errors import ConfigError
from vissl_lite.parallel.collectives import world_size
from vissl_lite.parallel.process import with_timeout_of_all

Strategy = Literal["reference_ddp", "ddp", "zero2", "zero3", "hsdp"]
SHARDED = ("ddp", "zero2", "zero3", "hsdp")  # what `fully_shard` does, on one mesh or another


def make_mesh(strategy: Strategy, shard_size: int | None, device: torch.device) -> DeviceMesh:
    """The mesh of a strategy over all W processes; they call it together.

        ddp     (W, 1)      every process holds everything
        zero2   (W)         gradients and optimizer state are sharded; weights from forward on whole
        zero3   (W)         weights too are gathered for each unit, and dropped after it
        hsdp    (W/S, S)    zero3 within groups of S processes, which hold copies of each other

    Args:
        shard_size: S; default: the processes of one machine. Consecutive ranks are a group.

    Raises:
        ConfigError: W is no multiple of S, or is given to another strategy.
    """
    if strategy in ("zero2", "zero3"):
        return init_device_mesh(device.type, (world_size(),), mesh_dim_names=("shard",))
    machine = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
    shards = 1 if strategy == "ddp" else checked_shard_size(shard_size, machine, world_size())
    shape = (world_size() // shards, shards)
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=("replicate", "shard"))
    for group in mesh.get_all_groups():
        with_timeout_of_all(group)
    return mesh


def processes_per_copy(strategy: str, world: int, shard_size: int) -> int:
    """Those that share one copy of the model, and gather its weights from each other."""
    return {"zero2": world, "zero3": world, "hsdp": shard_size}.get(strategy, 1)


def checked_shard_size(given: int | None, default: int, world: int) -> int:
    """Processes that hold one copy of the model together.

    Raises:
        ConfigError: `world` is no multiple of it.
    """
    size = default if given is None else given
    if size < 1 or world % size:
        raise ConfigError(
            f"parallel.shard_size: {world} processes do not split into groups of {size};"
            " choose a divisor"
        )
    return size
