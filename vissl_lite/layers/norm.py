"""Norm layers that know about recomputation, mixed precision and other processes.

Shape suffixes: C channels. x is [N, C] or [N, C, H, W]; n counts its values per channel.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from vissl_lite.errors import ConfigError
from vissl_lite.parallel.collectives import all_reduce_sum, world_size
from vissl_lite.parallel.process import with_timeout_of_all


def recomputing() -> bool:
    """Whether autograd is in a backward right now: a forward inside it only repeats an earlier one.

    Activation checkpointing calls the forward a second time inside backward. Under torch.compile
    the compiler sees the repetition itself and moves the update of buffers out of it.
    """
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def global_moments(x: Tensor, group_name: str = "") -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance per channel over the processes of a group, with one reduction.

        s = all_reduce([n m, n (v + m^2), n]);   mean = s_0 / s_2;   var = s_1 / s_2 - mean^2

    The local moments m, v are centred and in fp32 (fp64 for fp64); only the merge, which subtracts,
    needs fp64.

    Returns:
        mean_C and var_C in that precision, and the number of values per channel, a 0-d fp64 tensor.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    var_C, mean_C = torch.var_mean(wide, _all_but_channels(x), correction=0)
    m, v, n = mean_C.double(), var_C.double(), x.numel() // x.shape[1]
    sums = all_reduce_sum(torch.cat([n * m, n * (v + m.square()), m.new_full((1,), n)]), group_name)
    total = sums[-1]
    m, second = (sums[:-1] / total).chunk(2)
    return m.to(wide.dtype), (second - m.square()).clamp_min(0).to(wide.dtype), total


def normalize(
    x: Tensor, weight_C: Tensor, bias_C: Tensor, mean_C: Tensor, rstd_C: Tensor
) -> Tensor:
    """y = xhat w + b, xhat = (x - mean) rstd, in the precision of x."""
    xhat = (x - _column(mean_C, x)) * _column(rstd_C, x)
    return (xhat * _column(weight_C, x) + _column(bias_C, x)).to(x.dtype)


class SyncNormalize(torch.autograd.Function):
    """y = xhat w + b, xhat = (x - mean) / sqrt(var + eps); mean and var are `global_moments(x)`.

        dx = w / sqrt(var + eps) * (dy - E[dy] - xhat E[dy xhat]),   E: mean over all processes
        dw = sum of dy xhat,  db = sum of dy,                        over this process

    so that averaging the parameter gradients over processes gives those of the whole batch. Only x,
    in its own precision, is kept for the backward, which reduces once.

    PyTorch's kernels do what they can of it, each in one pass over x; what is left of the backward
    is dx = dy a + (x - mean) b + c, with a, b and c per channel.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_C: Tensor,
        bias_C: Tensor,
        mean_C: Tensor,
        var_C: Tensor,
        total: Tensor,
        eps: float,
        group_name: str,
    ) -> Tensor:
        ctx.save_for_backward(x, weight_C, mean_C, torch.rsqrt(var_C + eps), total)
        ctx.group_name = group_name
        return F.batch_norm(x, mean_C, var_C, weight_C, bias_C, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_C, mean_C, rstd_C, total = ctx.saved_tensors
        _, dw_C, db_C = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight_C, None, None, mean_C, rstd_C, True, 0.0, [False, True, True]
        )
        sums = torch.cat([db_C, dw_C]).double()
        mean_dy_C, mean_dy_xhat_C = (all_reduce_sum(sums, ctx.group_name) / total).chunk(2)
        a_C = weight_C * rstd_C
        b_C, c_C = -a_C * rstd_C * mean_dy_xhat_C, -a_C * mean_dy_C
        a, b, c = (_column(v_C.to(mean_C.dtype), x) for v_C in (a_C, b_C, c_C))
        dx = x - _column(mean_C, x)
        torch.addcmul(c, dx, b, out=dx)
        torch.addcmul(dx, grad, a, out=dx)
        return dx.to(x.dtype), dw_C, db_C, None, None, None, None, None


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    sync: bool | str = False
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        weight, bias = self._upcast(self.weight), self._upcast(self.bias)
        mean, var = self.running_mean, self.running_var
        if not self.training:
            return F.batch_norm(x, mean, var, weight, bias, False, 0.0, self.eps)
        if self.sync is not False:
            return self._synchronised(x, weight, bias)
        # momentum 0, not a call without the buffers: checkpointing counts the tensors saved
        momentum = 0.0 if recomputing() else self.momentum
        if not recomputing():
            self.num_batches_tracked.add_(1)
        return F.batch_norm(x, mean, var, weight, bias, True, momentum, self.eps)

    def _synchronised(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        group_name = self.sync if isinstance(self.sync, str) else ""
        # compiled, autograd differentiates the reduction itself: torch 2.11 gives a compiled
        # autograd.Function that reduces in its backward wrong gradients, without an error
        compiling = torch.compiler.is_compiling()
        with torch.set_grad_enabled(compiling and torch.is_grad_enabled()):
            mean_C, var_C, total = global_moments(x, group_name)
        if not recomputing():
            self._track(mean_C.detach(), var_C.detach() * total / (total - 1).clamp_min(1))
        weight = torch.ones_like(mean_C) if weight is None else weight
        bias = torch.zeros_like(mean_C) if bias is None else bias
        if compiling:
            return normalize(x, weight, bias, mean_C, torch.rsqrt(var_C + self.eps))
        return SyncNormalize.apply(x, weight, bias, mean_C, var_C, total, self.eps, group_name)

    @torch.no_grad()
    def _track(self, mean_C: Tensor, var_C: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(var_C.to(self.running_var.dtype), self.momentum)

    def _upcast(self, parameter: Tensor | None) -> Tensor | None:
        return None if parameter is None else parameter.to(self.running_mean.dtype)


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """`nn.BatchNorm2d` (same kernels, arguments and state dict) for large-scale training.

    - Running statistics are not updated while activation checkpointing recomputes.
    - Gamma and beta are cast to the precision of the running statistics, so that a unit whose
      parameters are sharded as bf16 works; the input may be of lower precision.
    - `sync`: False; True for batch statistics over all processes; or the name of a process group
      (`group.group_name`). One reduction in the forward, one in the backward. Works on CPU and
      under torch.compile.

    The running statistics must exist (`track_running_stats=True`) and `momentum` be a number.
    """


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """`nn.BatchNorm1d` with the additions of `BatchNorm2d`; x is [N, C]."""


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` whose weights may be of lower precision than x, as in a sharded bf16 unit."""

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, self.weight.dtype)
        weight, bias = self.weight.to(dtype), self.bias.to(dtype)
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


_OURS: dict[type, type] = {nn.BatchNorm1d: BatchNorm1d, nn.BatchNorm2d: BatchNorm2d}


def convert_batch_norm(module: nn.Module) -> nn.Module:
    """Makes every nn.BatchNorm1d and nn.BatchNorm2d in `module` ours, in place; returns it."""
    for child in module.modules():
        child.__class__ = _OURS.get(type(child), type(child))
    return module


def convert_sync_batchnorm(module: nn.Module, group_size: int | None = None) -> nn.Module:
    """Synchronises every BatchNorm in `module`, in place; returns it. All ranks must call it.

    Args:
        module: may hold nn.BatchNorm1d and nn.BatchNorm2d, which are converted first.
        group_size: consecutive ranks that share statistics, 64 in SEER; None for all.

    Raises:
        ConfigError: the number of processes is not a multiple of `group_size`.
    """
    sync = True if group_size is None else _subgroup(group_size)
    for child in convert_batch_norm(module).modules():
        if isinstance(child, _BatchNorm):
            child.sync = sync
    return module


@torch.no_grad()
def average_statistics(module: nn.Module) -> None:
    """Running statistics that each process has of its own become their mean; one reduction.

    What is saved and evaluated is then the same on all ranks. Training does not read them.
    """
    statistics = [
        buffer
        for child in module.modules()
        if isinstance(child, _BatchNorm) and child.sync is not True
        for buffer in (child.running_mean, child.running_var)
    ]
    if world_size() == 1 or not statistics:
        return
    flat = all_reduce_sum(torch.cat(statistics)) / world_size()
    torch._foreach_copy_(statistics, flat.split([len(buffer) for buffer in statistics]))


def check_groups(sync_bn: int | str, world: int) -> None:
    """That `parallel.sync_bn`, where it is a number, divides the processes.

    Raises:
        ConfigError: it does not.
    """
    if isinstance(sync_bn, int) and (sync_bn < 1 or world % sync_bn):
        raise ConfigError(
            f"parallel.sync_bn: {world} processes do not split into groups of {sync_bn};"
            " choose a divisor, or all"
        )


def _subgroup(size: int) -> str:
    check_groups(size, dist.get_world_size())
    own, _ = dist.new_subgroups(size)
    return with_timeout_of_all(own).group_name


def _all_but_channels(x: Tensor) -> list[int]:
    return [dim for dim in range(x.ndim) if dim != 1]


def _column(v_C: Tensor, x: Tensor) -> Tensor:
    return v_C.view(1, -1, *[1] * (x.ndim - 2))
