"""Row functions, such as softmax, of logits whose columns are spread over ranks.

Legend: N rows of this rank, M of all W ranks in their order; D features; C classes of this rank,
[first, first + C); L pairs (row, class) of this rank, P = W * L of all ranks.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vissl_lite.layers.precision import at_least_fp32, full_precision
from vissl_lite.parallel.collectives import gather_with_grad, rank, world_size

# f(z_MC, z_P, first) -> (f_M, z_P, ...): z_P comes in as the part of this rank and leaves as the
# sum over ranks; z_MC becomes the derivative of f_M, in place: it is the largest tensor of a step
RowFunction = Callable[[Tensor, Tensor, int], tuple[Tensor, ...]]


def softmax_(z_MC: Tensor, z_P: Tensor, first: int) -> tuple[Tensor, ...]:
    """f_M = log sum_k exp z_k over the classes of all ranks, and the argmax; z becomes softmax(z).

    m = all_reduce(max z);  e = exp(z - m);  s, z_P = all_reduce([sum e, z_P])
    f = m + log s;  df/dz = e / s
    """
    max_M, argmax_M = _row_max(z_MC, first)
    sum_M = z_MC.sub_(max_M[:, None]).exp_().sum(1)
    sum_M, z_P = _sum_over_ranks(sum_M, z_P)
    z_MC.div_(sum_M[:, None])
    return max_M + sum_M.log(), z_P, argmax_M


def sigmoid_(z_MC: Tensor, z_P: Tensor, first: int) -> tuple[Tensor, ...]:
    """f_M = sum_k log(1 + exp z_k) over the classes of all ranks; z becomes sigmoid(z)."""
    sum_M, z_P = _sum_over_ranks(-F.logsigmoid(-z_MC).sum(1), z_P)
    z_MC.sigmoid_()
    return sum_M, z_P


class ClassRows(torch.autograd.Function):
    """(f_N, z_L, ...): a row function of the logits z = x w^T + b, and z at the pairs asked for.

        forward     x_MD = all_gather(x_ND);  z_MC = x_MD w_CD^T + b_C
                    f_M, z_P = function(z_MC, z_MC at the pairs)        # reduces over ranks
        backward    g_M, g_P = all_gather(g_N, g_L)
                    d_MC = g_M df/dz;  d_MC += g_P at the pairs
                    dw = d^T x_MD / W;  db = sum_M d / W;  dx = reduce_scatter(d w)

    d belongs to the sum of all ranks' losses. So does dx, whose source averages its gradients over
    ranks later; nothing averages dw and db, hence their W. The backward overwrites what the
    forward kept; a second one raises.

    Args:
        x_ND: its dtype is that of the products; logits and all that follows are at least fp32.
        pair_L2: row among all M and class of each pair, as many on every rank; a class that no rank
            has gives 0.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        weight_CD: Tensor,
        bias_C: Tensor,
        pair_L2: Tensor,
        first: int,
        function_: RowFunction,
    ) -> tuple[Tensor, ...]:
        ctx.classes = len(bias_C)
        x_MD = gather_with_grad(x_ND)
        row_P, class_P = gather_with_grad(pair_L2).unbind(1)
        mine_P = (class_P >= first) & (class_P < first + len(bias_C))
        column_P = (class_P - first).where(mine_P, 0)
        weight_CD, bias_C = _never_empty(weight_CD, bias_C)
        with full_precision(x_ND):
            z_MC = F.linear(x_MD, weight_CD.to(x_ND.dtype), bias_C.to(x_ND.dtype))
        z_MC = at_least_fp32(z_MC)
        f_M, z_P, *rest = function_(z_MC, z_MC[row_P, column_P].where(mine_P, 0), first)
        ctx.save_for_backward(z_MC, x_MD, weight_CD, row_P, column_P, mine_P)
        own = [_own(t, len(t) // world_size()) for t in (f_M, z_P, *rest)]
        ctx.mark_non_differentiable(*own[2:])
        return tuple(own)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_N: Tensor, g_L: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        slope_MC, x_MD, weight_CD, row_P, column_P, mine_P = ctx.saved_tensors
        g_W = gather_with_grad(torch.cat([g_N, g_L])[None])
        g_M, g_P = (g.flatten() for g in g_W.split([len(g_N), len(g_L)], 1))
        d_MC = slope_MC.mul_(g_M[:, None])
        d_MC.index_put_((row_P, column_P), g_P.where(mine_P, 0), accumulate=True)
        db_C, d_MC = d_MC.sum(0).div_(world_size()), d_MC.to(x_MD.dtype)
        dx_ND = None
        with full_precision(d_MC):
            if ctx.needs_input_grad[0]:  # not with a frozen trunk
                dx_ND = _scatter_sum(d_MC @ weight_CD.to(x_MD.dtype))
            dw_CD = (d_MC.T @ x_MD).to(weight_CD.dtype).div_(world_size())
        return dx_ND, dw_CD[: ctx.classes], db_C[: ctx.classes], None, None, None


def _never_empty(weight_CD: Tensor, bias_C: Tensor) -> tuple[Tensor, Tensor]:
    """A rank without classes gets one that nothing belongs to: its logits are -inf."""
    if len(bias_C):
        return weight_CD, bias_C
    return weight_CD.new_zeros(1, weight_CD.shape[1]), bias_C.new_full((1,), -torch.inf)


def _row_max(z_MC: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Maximum over the classes of all ranks, and the first class that has it."""
    own_M, column_M = z_MC.max(1)
    max_M = own_M.clone()
    dist.all_reduce(max_M, dist.ReduceOp.MAX)
    argmax_M = (column_M + first).where(own_M == max_M, torch.iinfo(torch.int64).max)
    dist.all_reduce(argmax_M, dist.ReduceOp.MIN)
    return max_M, argmax_M


def _sum_over_ranks(a_M: Tensor, b_P: Tensor) -> tuple[Tensor, ...]:
    """Both, with one reduction."""
    both = torch.cat([a_M, b_P])
    dist.all_reduce(both)
    return both.split([len(a_M), len(b_P)])


def _scatter_sum(x_MD: Tensor) -> Tensor:
    """The rows of this rank of the sum over ranks, which is at least fp32."""
    wide_MD = at_least_fp32(x_MD)
    own_ND = wide_MD.new_empty(len(x_MD) // world_size(), x_MD.shape[1])
    dist.reduce_scatter_tensor(own_ND, wide_MD)
    return own_ND.to(x_MD.dtype)


def _own(t_M: Tensor, count: int) -> Tensor:
    return t_M[rank() * count : (rank() + 1) * count].clone()
