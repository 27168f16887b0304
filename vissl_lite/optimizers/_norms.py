"""L2 norms of many tensors, whole or sharded, without a word from the device to the host.

Legend: N tensors.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor


def with_gradient(group: dict[str, Any]) -> list[Tensor]:
    """The parameters of a group that have a gradient; a frozen one has None and is left alone."""
    return [p for p in group["params"] if p.grad is not None]


def gradients(params: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of parameters, each of which has one."""
    return [p.grad for p in params if p.grad is not None]


def local(tensors: Sequence[Tensor]) -> list[Tensor]:
    """What this process holds of each tensor: its shard of a DTensor, all of any other."""
    return [t.to_local() if isinstance(t, DTensor) else t for t in tensors]


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """The L2 norm of each of N tensors, [N], at least fp32: one kernel, one reduction.

    Sharded tensors: local norms are squared and summed over the processes that share the tensor,
    with one all-reduce for all tensors that are sharded alike (VISSL's LARC_FSDP).
    """
    shards = local(tensors)
    dtype = torch.promote_types(shards[0].dtype, torch.float32)
    norms_N = list(torch._foreach_norm(shards, 2, dtype))
    for groups, members in _sharded_alike(tensors).items():
        squares = torch.stack([norms_N[i] for i in members]).square_()
        for group in groups:
            dist.all_reduce(squares, group=group)
        for i, norm in zip(members, squares.sqrt_().unbind()):
            norms_N[i] = norm
    return torch.stack(norms_N)


def norms_by_group(
    groups: Sequence[dict[str, Any]],
) -> list[tuple[dict[str, Any], list[Tensor], Tensor, Tensor]]:
    """(group, its parameters that have a gradient, |p| of each, |g| of each), all norms in one go.

    Groups without any gradient are left out.
    """
    members = [(group, ps) for group in groups if (ps := with_gradient(group))]
    if not members:
        return []
    params = [p for _, ps in members for p in ps]
    p_norm_N, g_norm_N = norms(params + gradients(params)).chunk(2)
    sizes = [len(ps) for _, ps in members]
    return [
        (group, ps, p_norm, g_norm)
        for (group, ps), p_norm, g_norm in zip(
            members, p_norm_N.split(sizes), g_norm_N.split(sizes)
        )
    ]


def _sharded_alike(tensors: Sequence[Tensor]) -> dict[tuple[dist.ProcessGroup, ...], list[int]]:
    """Indices of the sharded tensors, by the process groups that their shards are spread over."""
    found = defaultdict(list)
    for i, t in enumerate(tensors):
        if isinstance(t, DTensor):
            spread = [axis for axis, p in enumerate(t.placements) if p.is_shard()]
            found[tuple(t.device_mesh.get_group(axis) for axis in spread)].append(i)
    return found
