"""Logits over so many classes that their weights are spread over all W ranks.

Legend: V crops, B images, N = V * B rows of this rank, M = W * N rows of all ranks in their order,
G = W * B images of all ranks; D features, D1 = D + 1 with the bias; K classes, C of them on this
rank; T pairs (image, class) of this rank, L after padding.

Every rank gathers all features and scores them against its own classes; what a loss needs of a row
is then a sum, or a maximum, over ranks. Weights stay where they are, and so does their gradient:
traffic grows with N instead of K.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from vissl_lite.layers.precision import at_least_fp32, full_precision
from vissl_lite.parallel.class_rows import ClassRows, RowFunction, sigmoid_, softmax_
from vissl_lite.parallel.collectives import all_reduce_sum, gather_with_grad, rank, world_size


def shard_rows_(layer: nn.Linear, mesh: DeviceMesh) -> None:
    """Leaves to each rank ceil(K / W) rows of weight and bias; the last ranks have fewer or none.

    Names, dtypes and full shapes stay; the parameters become DTensors, Shard(0). Every rank must
    hold the same layer before, which may be on the meta device; nothing is communicated.

    Args:
        mesh: one axis, all ranks.
    """
    for name, p in list(layer.named_parameters()):
        rows = distribute_tensor(p.detach(), mesh, [Shard(0)], src_data_rank=None)
        layer.register_parameter(name, nn.Parameter(rows, p.requires_grad))


@dataclass
class ShardedLogits:
    """Stands for logits x w^T + b, [V, B, K], where each rank holds some rows of w and b.

    It answers what losses ask (`softmax`, `sigmoid`, `mean`, `dot`) about the images of this rank,
    over all K classes, differentiably. Ranks call each method together, with equally many images.
    The gradient for x is that of the sum of all ranks' losses, as of any gathered embedding; the
    gradient for w and b is that of their mean, for nothing else averages it.

    Attributes:
        x_ND: features of this rank.
        layer: after `shard_rows_`.
        dtype: of the products x w^T; what follows them is at least fp32.
        rows: (N,), or (V, B) after `unflatten`.
    """

    x_ND: Tensor
    layer: nn.Linear
    dtype: torch.dtype
    rows: tuple[int, ...]

    @classmethod
    def of(cls, x_ND: Tensor, layer: nn.Linear) -> ShardedLogits:
        """Products are in the dtype that F.linear would have here, under autocast or not."""
        device = x_ND.device.type
        if torch.is_autocast_enabled(device):
            return cls(x_ND, layer, torch.get_autocast_dtype(device), x_ND.shape[:1])
        dtype = torch.promote_types(x_ND.dtype, layer.weight.dtype)
        return cls(x_ND, layer, dtype, x_ND.shape[:1])

    @property
    def shape(self) -> torch.Size:
        return torch.Size((*self.rows, self.layer.out_features))

    def unflatten(self, dim: int, sizes: tuple[int, ...]) -> ShardedLogits:
        """As of a tensor; only the rows, `dim` 0, can be unflattened."""
        assert dim == 0
        return replace(self, rows=sizes)

    def clone(self) -> ShardedLogits:
        """As of a tensor."""
        return replace(self, x_ND=self.x_ND.clone())

    def softmax(self, class_T: Tensor, image_T: Tensor | None = None) -> tuple[Tensor, ...]:
        """lse_VB = log sum_k exp z_k; z_VT of the pairs; argmax_VB, of equal scores the first.

        Args:
            class_T: -1, or any id that is no class, gives 0.
            image_T: in 0 .. B - 1; without it there is one class per image, T = B. With it ranks
                may differ in T, and tell each other on the host: the device is not waited for.
        """
        lse_N, z_VT, best_N = self._ask(softmax_, class_T, image_T)
        return lse_N.view(self.rows), z_VT, best_N.view(self.rows)

    def sigmoid(self, class_T: Tensor, image_T: Tensor | None = None) -> tuple[Tensor, ...]:
        """softplus_VB = - sum_k log(1 - sigmoid(z_k)); z_VT of the pairs. Arguments as above."""
        softplus_N, z_VT = self._ask(sigmoid_, class_T, image_T)
        return softplus_N.view(self.rows), z_VT

    def mean(self) -> Tensor:
        """[V, B]: mean over the classes, as x . mean(w) + mean(b): no logits are made."""
        weight_CD, bias_C = self._own_rows()
        total_D1 = _sum_of_shards(torch.cat([weight_CD.sum(0), bias_C.sum()[None]]))
        return self._affine(total_D1 / self.layer.out_features)

    def dot(self, q_BK: Tensor) -> Tensor:
        """[V, B]: sum_k q_k z_k, as x . (q w) + q b: columns of q go to the ranks with the rows.

        Costs a second product as large as that of one crop's logits.
        """
        weight_CD, bias_C = self._own_rows()
        with full_precision(self.x_ND):
            q_GC = self._to_owners(q_BK.to(bias_C.dtype))[:, : len(bias_C)]
            own_GD1 = torch.cat([q_GC @ weight_CD, (q_GC @ bias_C)[:, None]], 1)
        return self._affine(_sum_of_shards(own_GD1).chunk(world_size())[rank()])

    @torch.no_grad()
    def full(self) -> Tensor:
        """[V, B, K] for the images of this rank, as the unsharded layer would give, no gradient.

        Ranks may differ in the number of images, here alone; one may have none.
        """
        weight_CD, bias_C = self._own_rows()
        rows = len(self.x_ND)
        x_ND = F.pad(self.x_ND, (0, 0, 0, _max_of_hosts(rows) - rows))
        z_MC = F.linear(
            gather_with_grad(x_ND.to(self.dtype)),
            weight_CD.to(self.dtype),
            bias_C.to(self.dtype),
        )
        z_WNC = F.pad(z_MC, (0, self._most - len(bias_C))).unflatten(0, (world_size(), -1))
        z_NK = _exchange(z_WNC).transpose(0, 1).flatten(1)[:, : self.layer.out_features]
        return z_NK[:rows].unflatten(0, self.rows)

    @property
    def _most(self) -> int:
        """Classes of the first ranks."""
        return -(-self.layer.out_features // world_size())

    def _own_rows(self) -> list[Tensor]:
        """[C, D] and [C], at least fp32."""
        shards = [p.to_local() for p in (self.layer.weight, self.layer.bias)]
        return [at_least_fp32(shard) for shard in shards]

    def _affine(self, w_D1: Tensor) -> Tensor:
        """x . w + b with one (w, b) for all rows, or one per image."""
        x_VBD = at_least_fp32(self.x_ND).unflatten(0, self.rows)
        return (x_VBD * w_D1[..., :-1]).sum(-1) + w_D1[..., -1]

    def _to_owners(self, q_BK: Tensor) -> Tensor:
        """[G = W * B, most]: of the images of all ranks, the columns of this rank's classes."""
        padded = F.pad(q_BK, (0, self._most * world_size() - q_BK.shape[1]))
        return _exchange(padded.unflatten(1, (world_size(), -1)).transpose(0, 1)).flatten(0, 1)

    def _ask(
        self, function_: RowFunction, class_T: Tensor, image_T: Tensor | None
    ) -> tuple[Tensor, ...]:
        pair_VL2 = self._pairs(class_T, image_T)
        first = min(rank() * self._most, self.layer.out_features)
        f_N, z_L, *rest = ClassRows.apply(
            self.x_ND.to(self.dtype), *self._own_rows(), pair_VL2.flatten(0, 1), first, function_
        )
        return f_N, z_L.view(len(pair_VL2), -1)[:, : len(class_T)], *rest

    def _pairs(self, class_T: Tensor, image_T: Tensor | None) -> Tensor:
        """Row among all M and class of each pair, per crop, padded to as many on every rank."""
        crops, images = self.rows
        longest = len(class_T) if image_T is None else _max_of_hosts(len(class_T))
        image_T = torch.arange(images, device=class_T.device) if image_T is None else image_T
        crop_V1 = torch.arange(rank() * crops, (rank() + 1) * crops, device=class_T.device)[:, None]
        pair_VT2 = torch.stack([crop_V1 * images + image_T, class_T.expand(crops, -1)], -1)
        return F.pad(pair_VT2, (0, 0, 0, longest - len(class_T)), value=-1)


# so that FSDP and DDP find the features when they look for tensors to hook
pytree.register_pytree_node(
    ShardedLogits,
    lambda z: ([z.x_ND], (z.layer, z.dtype, z.rows)),
    lambda x, rest: ShardedLogits(*x, *rest),
)


class _MeanGradient(torch.autograd.Function):
    """Identity; the gradient of the sum of all ranks' losses becomes that of their mean."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad / world_size()


def _sum_of_shards(x: Tensor) -> Tensor:
    """Sum over ranks of what each makes of its rows, with the gradient that those need."""
    return _MeanGradient.apply(all_reduce_sum(x))


def _exchange(x_W: Tensor) -> Tensor:
    """Entry w goes to rank w; what comes from rank w is entry w."""
    received_W = torch.empty_like(x_W, memory_format=torch.contiguous_format)
    dist.all_to_all_single(received_W, x_W.contiguous())
    return received_W


def _max_of_hosts(count: int) -> int:
    """Maximum over ranks, at least 1, on the host: no device is waited for."""
    box = torch.tensor(max(1, count))
    dist.all_reduce(box, dist.ReduceOp.MAX)
    return int(box)
