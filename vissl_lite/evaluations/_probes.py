"""Linear classifiers of one layer's features, trained together by SGD.

Shape suffixes: N images, B of a batch, D features, P probes trained together, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vissl_lite.evaluations._accuracy import place

EPS = 1e-5  # of the standardisation, as in BatchNorm
BLOCK_ROWS = 1024  # images that are looked at together, outside training

Scaling = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SGD:
    """How probes are trained."""

    epochs: int
    batch_size: int
    momentum: float
    seed: int


@dataclass
class Linears:
    """P linear classifiers: logits[b, p] = x[b] @ weight[:, p] + bias[p]."""

    weight_DPC: Tensor
    bias_PC: Tensor

    @classmethod
    def zeros(cls, dim: int, probes: int, classes: int, like: Tensor) -> Linears:
        return cls(like.new_zeros(dim, probes, classes), like.new_zeros(probes, classes))

    def logits(self, x_BD: Tensor) -> Tensor:
        """[B, P, C]."""
        return torch.einsum("bd,dpc->bpc", x_BD, self.weight_DPC) + self.bias_PC

    def gradients(self, x_BD: Tensor, label_B: Tensor) -> Linears:
        """Of the mean cross-entropies: G = (softmax(logits) - onehot) / B; X^T G, sum of G."""
        g_BPC = self.logits(x_BD).softmax(-1)
        g_BPC[torch.arange(len(x_BD), device=x_BD.device), :, label_B] -= 1
        g_BPC /= len(x_BD)
        return Linears(torch.einsum("bd,bpc->dpc", x_BD, g_BPC), g_BPC.sum(0))


class Probes:
    """All probes on the same batches; each ends as if it had been trained alone.

        v = momentum v + gradient + weight_decay W;   W = W - lr (1 + cos(pi t / T)) / 2 v

    T counts the steps of all epochs. Weights and v begin with 0, biases do not decay, and the last
    batch of an epoch may be smaller.

    Args:
        rows: the images to train on, as row numbers of the features.
        scale: applied to every batch of features; its result decides device and precision.
        dim: D, the width of the features.
    """

    def __init__(
        self,
        rows: Tensor,
        scale: Scaling,
        dim: int,
        num_classes: int,
        lr_P: Tensor,
        weight_decay_P: Tensor,
        sgd: SGD,
    ):
        self.rows, self.scale, self.sgd = rows, scale, sgd
        self.lr_P1, self.decay_P1 = lr_P[:, None], weight_decay_P[:, None]
        self.linears = Linears.zeros(dim, len(lr_P), num_classes, like=lr_P)
        self.velocity = Linears.zeros(dim, len(lr_P), num_classes, like=lr_P)
        self.generator = torch.Generator().manual_seed(sgd.seed)
        self.step, self.steps = 0, sgd.epochs * math.ceil(len(rows) / sgd.batch_size)

    def epoch(self, x_ND: Tensor, label_N: Tensor) -> None:
        """One epoch on features of all images, the same or newly augmented ones."""
        order = self.rows[torch.randperm(len(self.rows), generator=self.generator)]
        for batch in order.split(self.sgd.batch_size):
            self._update(self.scale(x_ND[batch]), label_N[batch].to(self.lr_P1.device))

    def _update(self, x_BD: Tensor, label_B: Tensor) -> None:
        linears, v, grad = self.linears, self.velocity, self.linears.gradients(x_BD, label_B)
        lr_P1 = self.lr_P1 * ((1 + math.cos(math.pi * self.step / self.steps)) / 2)
        grad.weight_DPC += self.decay_P1 * linears.weight_DPC
        v.weight_DPC.mul_(self.sgd.momentum).add_(grad.weight_DPC)
        v.bias_PC.mul_(self.sgd.momentum).add_(grad.bias_PC)
        linears.weight_DPC -= lr_P1 * v.weight_DPC
        linears.bias_PC -= lr_P1 * v.bias_PC
        self.step += 1


def standardiser(x_ND: Tensor, rows: Tensor, device: torch.device) -> Scaling:
    """A function that moves features to the device, scaled to mean 0, variance 1 over `rows`."""
    sums_2D = torch.zeros(2, x_ND.shape[1], dtype=torch.float64)
    for block in rows.split(BLOCK_ROWS):  # never a second copy of all features
        x_BD = x_ND[block].double()
        sums_2D += torch.stack([x_BD.sum(0), x_BD.square().sum(0)])
    mean_D, square_D = sums_2D / len(rows)
    scale_D = (square_D - mean_D.square() + EPS).rsqrt().to(device, x_ND.dtype)
    mean_D = mean_D.to(device, x_ND.dtype)
    return lambda x_BD: (x_BD.to(device) - mean_D) * scale_D


def hits(linears: Linears, data: tuple[Tensor, Tensor], rows: Tensor, scale: Scaling) -> Tensor:
    """[P, 2], float64: images among `rows` whose class is first, among the first five.

    Args:
        data: features [N, D] and labels [N].
    """
    count_P2 = torch.zeros(len(linears.bias_PC), 2, dtype=torch.float64)
    for batch in rows.split(BLOCK_ROWS):
        logits_BPC = linears.logits(scale(data[0][batch]))
        label_B1 = data[1][batch].to(logits_BPC.device)[:, None]
        place_BP = place(logits_BPC, label_B1.expand(logits_BPC.shape[:2]))
        top = [(place_BP < n).sum(0) for n in (1, 5)]
        count_P2 += torch.stack(top, dim=1).cpu()
    return count_P2
