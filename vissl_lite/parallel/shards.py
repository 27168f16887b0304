"""Arithmetic on tensors of which each process may hold a piece, with one reduction for many.

Legend: N tensors.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from vissl_lite.parallel.collectives import rank


def local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this process holds of each tensor: its shard of a DTensor, all of any other."""
    return [t.to_local() if isinstance(t, DTensor) else t for t in tensors]


def whole(tensor: Tensor) -> Tensor:
    """The full tensor, on every rank; ranks call it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


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


@torch.no_grad()
def clip_grad_norm_(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scales all gradients so that their joint L2 norm is at most `max_norm`; returns the norm.

    As torch's, for any mixture of plain tensors and shards on several meshes; the host never waits.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return torch.tensor(0.0)
    total = norms(grads).norm()
    torch._foreach_mul_(local(grads), (max_norm / (total + 1e-6)).clamp(max=1.0))
    return total


@torch.no_grad()
def scatter_(module: nn.Module, full: dict[str, Tensor]) -> None:
    """Fills parameters and buffers with the tensors of rank 0, one at a time.

    Every process gets its own shard only. Ranks call it together.

    Args:
        full: all of them by name, on rank 0; empty on the others.
    """
    for name, t in tensors_of(module).items():
        source = full[name] if rank() == 0 else torch.empty(t.shape, dtype=t.dtype, device=t.device)
        source = source.to(t.device)
        if isinstance(t, DTensor):
            t.to_local().copy_(distribute_tensor(source, t.device_mesh, t.placements).to_local())
        else:
            dist.broadcast(source, src=0)
            t.copy_(source)


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, those buffers included that no state dict has."""
    return dict(chain(module.named_parameters(), module.named_buffers()))


def _sharded_alike(tensors: Sequence[Tensor]) -> dict[tuple[dist.ProcessGroup, ...], list[int]]:
    """Indices of the sharded tensors, by the process groups that their shards are spread over."""
    found = defaultdict(list)
    for i, t in enumerate(tensors):
        if isinstance(t, DTensor):
            spread = [axis for axis, p in enumerate(t.placements) if p.is_shard()]
            found[tuple(t.device_mesh.get_group(axis) for axis in spread)].append(i)
    return found
