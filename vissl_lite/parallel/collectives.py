"""Collectives for losses, layers and metrics; without a process group they act as for one process.

Shape suffixes: N rows of this process, W processes, D columns.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import _resolve_process_group

from vissl_lite.errors import ConfigError


def is_distributed() -> bool:
    """Whether there is a process group, of one process or more."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Position of this process among all; 0 without a process group."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes; 1 without a process group."""
    return dist.get_world_size() if is_distributed() else 1


@torch.library.custom_op("vissl_lite::all_reduce_sum", mutates_args=())
def all_reduce_sum(x: Tensor, group_name: str = "") -> Tensor:
    """Sum of `x` over the processes of a group, differentiable; a copy without a process group.

    The gradient of the sum of all ranks' losses is the sum over ranks of d(loss)/d(result), hence
    the backward is the same collective. A custom op, so that it compiles without a graph break
    and that selective checkpointing can save its result instead of communicating again.

    Args:
        x: any shape, the same on every rank.
        group_name: `process_group.group_name`; all processes when empty.
    """
    total = x.clone(memory_format=torch.contiguous_format)
    if is_distributed():
        named = _resolve_process_group(cast(Any, group_name)) if group_name else None
        dist.all_reduce(total, group=named)
    return total


@all_reduce_sum.register_fake
def _(x: Tensor, group_name: str = "") -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _keep_group(ctx: Any, inputs: tuple[Tensor, str], output: Tensor) -> None:
    ctx.group_name = inputs[1]


def _sum_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return all_reduce_sum(grad, ctx.group_name), None


all_reduce_sum.register_autograd(_sum_gradients, setup_context=_keep_group)


def mean_over_ranks(x: Tensor) -> Tensor:
    """Mean of `x` over all processes, differentiable."""
    return all_reduce_sum(x) / world_size()


class _GatherWithGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor) -> Tensor:
        return _all_gather(x_ND)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        own = grad.new_empty(len(grad) // world_size(), *grad.shape[1:])
        dist.reduce_scatter_tensor(own, grad.contiguous())
        return own


def gather_with_grad(x_ND: Tensor) -> Tensor:
    """[W * N, D]: the rows of all processes in rank order; N must be the same on every rank.

    The backward sums the gradients that all ranks have for the rows of this one. If every rank
    averages its loss over its own N rows, averaging parameter gradients over ranks then gives the
    gradient of the mean over all W * N rows.
    """
    return _GatherWithGrad.apply(x_ND) if is_distributed() else x_ND


@torch.no_grad()
def all_gather_cat(x: Tensor) -> Tensor:
    """Rows of all processes in rank order, without gradient; ranks may differ in their number.

    The row counts travel first and are read on the host: one synchronisation with the device.
    """
    if not is_distributed():
        return x
    counts = _all_gather(torch.tensor([len(x)], device=x.device)).tolist()
    padded = x.new_zeros(max(counts), *x.shape[1:])
    padded[: len(x)] = x
    rows = _all_gather(padded).chunk(len(counts)) if max(counts) else [padded] * len(counts)
    return torch.cat([block[:count] for block, count in zip(rows, counts)])


def broadcast_object(obj: Any) -> Any:
    """The picklable `obj` of rank 0, on every rank."""
    box = [obj]
    if is_distributed():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def on_rank_zero(function: Callable[[], Any]) -> Any:
    """What `function` returns on rank 0, on every rank; what it raises there too, if a ConfigError.

    The result must be picklable.
    """
    result, error = None, None
    if rank() == 0:
        try:
            result = function()
        except ConfigError as raised:
            error = raised
    result, error = broadcast_object((result, error))
    if error is not None:
        raise error
    return result


def first_error(error: Exception | None) -> Exception | None:
    """The picklable error of the lowest rank that has one, on every rank; None where none has."""
    errors: list[Exception | None] = [error]
    if is_distributed():
        errors *= world_size()
        dist.all_gather_object(errors, error)
    return next((found for found in errors if found is not None), None)


def _all_gather(x: Tensor) -> Tensor:
    rows = x.new_empty(world_size() * len(x), *x.shape[1:])
    dist.all_gather_into_tensor(rows, x.contiguous())
    return rows
