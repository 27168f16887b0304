"""Shape suffixes: N images, B of a batch, D features, P probes trained together, C classes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from vissl_lite import EVALUATIONS, ConfigError
from vissl_lite.evaluations._accuracy import place
from vissl_lite.parallel.collectives import all_reduce_sum, rank, world_size

if TYPE_CHECKING:
    from vissl_lite.engine.bench import Bench

EPS = 1e-5  # of the standardisation, as in BatchNorm
BLOCK_ROWS = 1024  # images that are looked at together, outside training


@EVALUATIONS.register("linear")
class LinearProbe:
    """Linear classifiers on frozen features: layers x learning rates x weight decays in one run.

    Features are computed once per image, from the labelled transforms, without augmentation, and
    standardised by mean and variance of the images that are trained on, which stands for the
    BatchNorm without affine of VISSL's `eval_mlp` head. All probes see the same batches. SGD with
    momentum and a cosine from the learning rate to 0, from weights 0; the problem is convex.

    Metrics, in [0, 1]: accuracies on the test images, of every probe (`top1_res5_lr0.1_wd0.0005`)
    and `top1`, `top5` of the best. The best is chosen on a share of the train images that
    the probes do not see, never on the test images.

    Args:
        layers: trunk layers or "embedding"; default: the layer that feeds the heads.
        learning_rates, weight_decays: to choose from; the decays are SwAV's and VISSL's.
        epochs, batch_size, momentum: 100 epochs of batches of 256 as in SwAV's linear evaluation.
        held_out: share of the train images that chooses the best probe.
        seed: of the held-out images and the batches.

    Raises:
        ConfigError: no learning rate or weight decay, or `held_out` leaves no image on one side.
    """

    def __init__(
        self,
        layers: tuple[str, ...] | None = None,
        learning_rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
        weight_decays: tuple[float, ...] = (1e-6, 5e-4),
        epochs: int = 100,
        batch_size: int = 256,
        momentum: float = 0.9,
        held_out: float = 0.1,
        seed: int = 0,
    ):
        self.layers, self.grid = layers, list(itertools.product(learning_rates, weight_decays))
        if not self.grid:
            raise ConfigError(
                "evaluations.linear: learning_rates and weight_decays need a value each"
            )
        self.sgd = SGD(epochs, batch_size, momentum, seed)
        self.held_out, self.seed = held_out, seed

    def evaluate(self, bench: Bench) -> dict[str, float]:
        layers = list(self.layers or [bench.model.layer])
        bench.features("train", layers)  # all layers in one pass
        bench.features("test", layers)
        probes = [probe for layer in layers for probe in self._probes(bench, layer)]
        best = max(probes, key=lambda probe: probe.held_out)
        bench.note(f"linear: {best.name} is best on the held-out images: {best.held_out:.4f}")
        each = {f"top1_{probe.name}": probe.top1 for probe in probes}
        return {"top1": best.top1, "top5": best.top5, **each}

    def _probes(self, bench: Bench, layer: str) -> list[Probe]:
        """Rank r of W trains probes r, r + W, ...; on any W each of them is the same."""
        train, test = bench.features("train", [layer]), bench.features("test", [layer])
        own = range(rank(), len(self.grid), world_size())
        accuracy_P3 = torch.zeros(len(self.grid), 3, dtype=torch.float64)
        if own:
            accuracy_P3[list(own)] = self._accuracies(
                [self.grid[p] for p in own],
                (train.features[layer], train.label_N),
                (test.features[layer], test.label_N),
                bench.num_classes,
                bench.device,
            )
        rows = all_reduce_sum(accuracy_P3).tolist()
        return [
            Probe(f"{layer}_lr{lr:g}_wd{decay:g}", *row)
            for (lr, decay), row in zip(self.grid, rows)
        ]

    def _accuracies(
        self,
        grid: list[tuple[float, float]],
        train: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        num_classes: int,
        device: torch.device,
    ) -> Tensor:
        """[P, 3]: top 1 on the held-out images, top 1 and top 5 on the test images."""
        fit, chosen = split(len(train[1]), self.held_out, self.seed)
        scale = standardiser(train[0], fit, device)
        lr_P, decay_P = torch.tensor(grid, device=device).unbind(1)
        fitted = train_probes(train, fit, scale, num_classes, lr_P, decay_P, self.sgd)
        held_out = hits(fitted, train, chosen, scale) / len(chosen)
        tested = hits(fitted, test, torch.arange(len(test[1])), scale) / len(test[1])
        return torch.cat([held_out[:, :1], tested], dim=1)


class Probe(NamedTuple):
    """Accuracies of one probe."""

    name: str
    held_out: float
    top1: float
    top5: float


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


def split(size: int, held_out: float, seed: int) -> tuple[Tensor, Tensor]:
    """Two disjoint random sets of row numbers: the images to train on, and those held out."""
    count = round(held_out * size)
    if not 0 < count < size:
        raise ConfigError(
            f"evaluations.linear.held_out: {held_out:g} of {size} train images are {count}; both"
            " sides need images"
        )
    rows = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return rows[count:], rows[:count]


def standardiser(x_ND: Tensor, rows: Tensor, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A function that moves features to the device, scaled to mean 0, variance 1 over `rows`."""
    sums_2D = torch.zeros(2, x_ND.shape[1], dtype=torch.float64)
    for block in rows.split(BLOCK_ROWS):  # never a second copy of all features
        x_BD = x_ND[block].double()
        sums_2D += torch.stack([x_BD.sum(0), x_BD.square().sum(0)])
    mean_D, square_D = sums_2D / len(rows)
    scale_D = (square_D - mean_D.square() + EPS).rsqrt().to(device, x_ND.dtype)
    mean_D = mean_D.to(device, x_ND.dtype)
    return lambda x_BD: (x_BD.to(device) - mean_D) * scale_D


def train_probes(
    data: tuple[Tensor, Tensor],
    rows: Tensor,
    scale: Callable[[Tensor], Tensor],
    num_classes: int,
    lr_P: Tensor,
    weight_decay_P: Tensor,
    sgd: SGD,
) -> Linears:
    """All probes on the same batches; each ends as if it had been trained alone.

        v = momentum v + gradient + weight_decay W;   W = W - lr (1 + cos(pi t / T)) / 2 v

    Biases do not decay. The last batch of an epoch may be smaller.

    Args:
        data: features [N, D] and labels [N].
        rows: the images to train on, as row numbers.
        scale: applied to every batch of features; its result decides device and precision.
    """
    x_ND, label_N = data
    generator = torch.Generator().manual_seed(sgd.seed)
    steps = sgd.epochs * math.ceil(len(rows) / sgd.batch_size)
    probes = Linears.zeros(x_ND.shape[1], len(lr_P), num_classes, like=scale(x_ND[:1]))
    velocity = Linears.zeros(x_ND.shape[1], len(lr_P), num_classes, like=scale(x_ND[:1]))
    batches = (
        batch
        for _ in range(sgd.epochs)
        for batch in rows[torch.randperm(len(rows), generator=generator)].split(sgd.batch_size)
    )
    for t, batch in enumerate(batches):
        lr_now = lr_P[:, None] * ((1 + math.cos(math.pi * t / steps)) / 2)
        grad = probes.gradients(scale(x_ND[batch]), label_N[batch].to(lr_P.device))
        grad.weight_DPC += weight_decay_P[:, None] * probes.weight_DPC
        velocity.weight_DPC.mul_(sgd.momentum).add_(grad.weight_DPC)
        velocity.bias_PC.mul_(sgd.momentum).add_(grad.bias_PC)
        probes.weight_DPC -= lr_now * velocity.weight_DPC
        probes.bias_PC -= lr_now * velocity.bias_PC
    return probes


def hits(
    probes: Linears,
    data: tuple[Tensor, Tensor],
    rows: Tensor,
    scale: Callable[[Tensor], Tensor],
) -> Tensor:
    """[P, 2], float64: images among `rows` whose class is first, among the first five."""
    count_P2 = torch.zeros(len(probes.bias_PC), 2, dtype=torch.float64)
    for batch in rows.split(BLOCK_ROWS):
        logits_BPC = probes.logits(scale(data[0][batch]))
        label_B1 = data[1][batch].to(logits_BPC.device)[:, None]
        place_BP = place(logits_BPC, label_B1.expand(logits_BPC.shape[:2]))
        top = [(place_BP < n).sum(0) for n in (1, 5)]
        count_P2 += torch.stack(top, dim=1).cpu()
    return count_P2
