"""From a model on one process to a model on many: checkpoint -> compile -> shard, unit by unit."""

import inspect
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.nn.parallel import DistributedDataParallel

from vissl_lite.compiler import missing
from vissl_lite.errors import ConfigError
from vissl_lite.layers.unit import Checkpointing, Unit, checkpointed
from vissl_lite.parallel.collectives import rank, world_size
from vissl_lite.parallel.shards import scatter_, tensors_of

_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_LOCAL_BUFFERS: dict[str, Any] = {  # torch 2.15 renamed it
    "forward_sync_buffers" if _RENAMED else "broadcast_buffers": False
}
RECOMPILE_LIMIT = 64  # units of one class share Dynamo's cache; at 8, its default, others run eager


def units_of(model: Any) -> list[nn.Module]:
    """What is checkpointed, compiled and sharded one by one: the trunk's blocks.

    Stems and what else belongs to no `Unit` stay with the root. A trunk without any `Unit`, such as
    a model of timm, gives all that it lists.
    """
    listed = model.trunk.units()
    return [unit for unit in listed if isinstance(unit, Unit)] or listed


def sharding_units(model: Any, split_above: int | None) -> list[nn.Module]:
    """What is sharded apart from the root: blocks and heads but the scorer, large parts first.

    Args:
        split_above: convolutions of more parameters are units of their own; None: none is.
    """
    blocks = units_of(model)
    parts = [module for unit in blocks for module in unit.modules()]
    limit = math.inf if split_above is None else split_above
    large = [m for m in parts if isinstance(m, nn.Conv2d) and m.weight.numel() > limit]
    heads = [head for head in model.heads if not getattr(head, "scorer", False)]
    return [*large, *blocks, *heads]


def checkpoint_units(model: Any, checkpointing: Checkpointing) -> None:
    """Sets what the units of the student compute again in the backward pass."""
    for unit in units_of(model):
        if isinstance(unit, Unit):
            unit.checkpointing = checkpointing
        elif checkpointing != "none":
            unit.forward = partial(checkpointed, unit.forward, checkpointing)


def compile_units(model: Any, device: torch.device) -> None:
    """One graph per unit and set of crop sizes; the rest stays eager.

    Raises:
        ConfigError: without the compilers that it takes.
    """
    import torch._dynamo

    if lacking := missing(device):
        raise ConfigError(f"compile: true needs {lacking}; or leave compile out")
    torch._dynamo.config.recompile_limit = max(
        torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT
    )
    # Dynamo looks at the .grad of the crops, which are no leaves
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
    for unit in units_of(model):
        unit.compile(fullgraph=isinstance(unit, Unit), dynamic=False)


def shard(
    model: Any,
    mesh: DeviceMesh,
    *,
    param_dtype: torch.dtype | None = None,
    keep_weights: bool = False,
    split_above: int | None = None,
    cpu_offload: bool = False,
) -> None:
    """Shards a model, and its teacher alike, by FSDP2, in place; names stay.

    The weights are those of rank 0's model, from host memory one tensor at a time; other ranks may
    have theirs on the meta device. Ranks call it together.

    Blocks and heads are units of their own, in the computing precision. The scorer, the stem and
    the rest are the root: whole from the forward to the backward pass, in fp32.

    Args:
        param_dtype: of the weights of a unit as they are gathered; None for their own. Gradients
            are reduced in at least fp32.
        keep_weights: do not drop a unit's weights between its forward and its backward pass.
        split_above: convolutions of more parameters are units of their own.
        cpu_offload: shards live in host memory, pinned where there is a GPU.
    """
    full = {k: t.detach() for k, t in tensors_of(model).items()} if rank() == 0 else {}
    model.to("meta")  # rank 0 keeps its weights in `full`
    offload = CPUOffloadPolicy(mesh.device_type == "cuda") if cpu_offload else OffloadPolicy()
    common: dict[str, Any] = {"mesh": mesh, "offload_policy": offload}
    reduced = torch.promote_types(next(model.parameters()).dtype, torch.float32)
    low = MixedPrecisionPolicy(param_dtype, reduced, cast_forward_inputs=False)
    root = MixedPrecisionPolicy(None, reduced, cast_forward_inputs=False)
    for net in filter(None, (model.teacher, model)):
        own = _shard_classes(net, mesh.device_type)
        for unit in sharding_units(net, split_above):
            fully_shard(unit, mp_policy=low, reshard_after_forward=not keep_weights, **common)
        fully_shard(net, mp_policy=root, ignored_params=own, **common)
        register_fsdp_forward_method(net, "layer_features")
    device = _current_device(mesh)
    model.to_empty(device="cpu" if cpu_offload else device)
    for module in model.modules():  # statistics are computed with where the activations are
        for name, buffer in module._buffers.items():
            module._buffers[name] = buffer if buffer is None else buffer.to(device)
    scatter_(model, full)


def _current_device(mesh: DeviceMesh) -> torch.device:
    if mesh.device_type == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(mesh.device_type)


def _shard_classes(model: Any, device_type: str) -> set[nn.Parameter]:
    """Spreads the classes of heads that ask for it over all ranks; what FSDP must leave alone."""
    heads = [head for head in model.heads if getattr(head, "shard_classes", False)]
    if heads:
        mesh = init_device_mesh(device_type, (world_size(),), mesh_dim_names=("classes",))
        for head in heads:
            head.shard_(mesh)
    return {p for head in heads for p in head.own_parameters}


def data_parallel(model: nn.Module, device: torch.device, find_unused: bool) -> nn.Module:
    """`DistributedDataParallel` around a model: the reference that the other strategies equal."""
    return DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        find_unused_parameters=find_unused,
        **_LOCAL_BUFFERS,
    )


def release(model: nn.Module) -> None:
    """Drops the root's gathered weights, which a forward pass without a backward leaves behind."""
    if isinstance(model, FSDPModule):
        model.reshard()


@contextmanager
def accumulating(forward: nn.Module) -> Iterator[None]:
    """Gradients made inside stay with their process, to be reduced with later ones."""
    if isinstance(forward, FSDPModule):
        forward.set_requires_gradient_sync(False)
        yield
        forward.set_requires_gradient_sync(True)
    else:
        ddp = isinstance(forward, DistributedDataParallel)
        with forward.no_sync() if ddp else nullcontext():
            yield
