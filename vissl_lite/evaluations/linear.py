"""Shape suffixes: N images, D features, L layers, P probes of one layer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
from torch import Tensor

from vissl_lite import EVALUATIONS, TRANSFORMS, ConfigError
from vissl_lite.evaluations._probes import SGD, Probes, hits, standardiser
from vissl_lite.evaluations._split import split
from vissl_lite.parallel.collectives import all_reduce_sum, rank, world_size

if TYPE_CHECKING:
    from vissl_lite.engine.bench import Bench
    from vissl_lite.engine.features import FeatureSet


@EVALUATIONS.register("linear")
class LinearProbe:
    """Linear classifiers on frozen features: layers x learning rates x weight decays in one run.

    Without `augment` features are computed once per image, from the labelled transforms. With it
    every epoch computes them anew, from images that went through these random transforms: the
    protocol of MoCo, SimCLR and SwAV with [random_resized_crop, random_horizontal_flip], at the
    cost of a forward pass over the train images per epoch. One pass serves all layers and probes,
    all probes see the same batches, and processes share out both.

    Features are standardised, which stands for the BatchNorm without affine of VISSL's `eval_mlp`
    head, by mean and variance of the images that are trained on, seen without augmentation, as the
    images are that the probes are judged by. SGD with momentum and a cosine over all epochs from
    the learning rate to 0, from weights 0; the problem is convex.

    Metrics, in [0, 1]: accuracies on the test images, of every probe (`top1_res5_lr0.1_wd0.0005`)
    and `top1`, `top5` of the best. The best is chosen on a share of the train images that the
    probes do not see, never on the test images; neither are augmented.

    Args:
        layers: trunk layers or "embedding"; default: the layer that feeds the heads.
        learning_rates, weight_decays: to choose from; the decays are SwAV's and VISSL's.
        epochs, batch_size, momentum: 100 epochs of batches of 256 as in SwAV's linear evaluation.
        held_out: share of the train images that chooses the best probe.
        augment: transforms of the train images, in place of the labelled ones; default: none.
        seed: of the held-out images and the batches.

    Raises:
        ConfigError: no learning rate or weight decay, or one below 0, `epochs` or `batch_size`
            below 1, or `held_out` leaves no image on one side.
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
        augment: Annotated[list | None, TRANSFORMS] = None,
        seed: int = 0,
    ):
        self.layers, self.grid = layers, list(itertools.product(learning_rates, weight_decays))
        if not self.grid:
            raise ConfigError(
                "evaluations.linear: learning_rates and weight_decays need a value each"
            )
        if min(learning_rates) <= 0 or min(weight_decays) < 0:
            raise ConfigError(
                "evaluations.linear: learning_rates need to be above 0, weight_decays 0 or more"
            )
        if min(epochs, batch_size) < 1:
            raise ConfigError("evaluations.linear: epochs and batch_size need to be 1 or more")
        self.sgd = SGD(epochs, batch_size, momentum, seed)
        self.held_out, self.augment, self.seed = held_out, augment, seed

    def check(self, bench: Bench) -> None:
        bench.check_layers(*(self.layers or ()))

    def evaluate(self, bench: Bench) -> dict[str, float]:
        layers = list(self.layers or [bench.model.layer])
        train, test = bench.features("train", layers), bench.features("test", layers)
        place = "evaluations.linear.held_out"
        fit, chosen = split(len(train.label_N), self.held_out, self.seed, place)
        own = list(range(rank(), len(self.grid), world_size()))
        probes = self._probes(train, fit, own, bench) if own else {}
        for seen in self._epochs(bench, train, layers):
            for layer, trained in probes.items():
                trained.epoch(seen.features[layer], seen.label_N)
        accuracy_LP3 = torch.zeros(len(layers), len(self.grid), 3, dtype=torch.float64)
        for found_P3, layer in zip(accuracy_LP3, layers if own else []):
            found_P3[own] = accuracies(probes[layer], layer, (train, chosen), test)
        return self._metrics(bench, layers, all_reduce_sum(accuracy_LP3))

    def _probes(
        self, train: FeatureSet, fit: Tensor, own: list[int], bench: Bench
    ) -> dict[str, Probes]:
        """Those of this process: rank r of W has r, r + W, ...; on any W each of them is the same.

        Args:
            fit: the rows that they are trained on.
            own: their places in the grid.
        """
        grid_P2 = torch.tensor([self.grid[p] for p in own], device=bench.device)
        probes = {}
        for layer, x_ND in train.features.items():
            scale, dim = standardiser(x_ND, fit, bench.device), x_ND.shape[1]
            probes[layer] = Probes(fit, scale, dim, bench.num_classes, *grid_P2.T, sgd=self.sgd)
        return probes

    def _epochs(self, bench: Bench, train: FeatureSet, layers: list[str]) -> Iterator[FeatureSet]:
        """The train images as each epoch sees them."""
        for epoch in range(self.sgd.epochs):
            if self.augment is None:
                yield train
            else:
                augmented = replace(bench.labelled, transforms=self.augment)
                place = "evaluations.linear.augment"
                yield bench.seen("train", augmented, layers, epoch=epoch, place=place)

    def _metrics(self, bench: Bench, layers: list[str], accuracy_LP3: Tensor) -> dict[str, float]:
        names = [f"{layer}_lr{lr:g}_wd{decay:g}" for layer in layers for lr, decay in self.grid]
        probes = [Probe(n, *row) for n, row in zip(names, accuracy_LP3.flatten(0, 1).tolist())]
        best = max(probes, key=lambda probe: probe.held_out)
        bench.note(f"linear: {best.name} is best on the held-out images: {best.held_out:.4f}")
        each = {f"top1_{probe.name}": probe.top1 for probe in probes}
        return {"top1": best.top1, "top5": best.top5, **each}


class Probe(NamedTuple):
    """Accuracies of one probe."""

    name: str
    held_out: float
    top1: float
    top5: float


def accuracies(
    probes: Probes, layer: str, held_out: tuple[FeatureSet, Tensor], test: FeatureSet
) -> Tensor:
    """[P, 3]: top 1 on the held-out images, given with their rows, top 1 and top 5 on the test."""
    (train, chosen), every = held_out, torch.arange(len(test.label_N))
    chosen_P2, test_P2 = (
        hits(probes.linears, (found.features[layer], found.label_N), rows, probes.scale) / len(rows)
        for found, rows in ((train, chosen), (test, every))
    )
    return torch.cat([chosen_P2[:, :1], test_P2], dim=1)
