"""Shape suffixes: N images, C classes, S settings (classifier, k), R draws, K values of C,
J judges: sets of images to be classified."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vissl_lite import EVALUATIONS, ConfigError
from vissl_lite.data.random import generator
from vissl_lite.evaluations._classifiers import (
    Data,
    Kind,
    Scale,
    accuracies,
    check_costs,
    check_two_classes,
    data_of,
    fit,
    linear_classifier,
    note_unconverged,
)
from vissl_lite.evaluations._ranks import share_out
from vissl_lite.evaluations._split import split

if TYPE_CHECKING:
    from vissl_lite.engine.bench import Bench

STREAM = 13  # of `generator`


@EVALUATIONS.register("low_shot")
class LowShot:
    """Linear classifiers on frozen features of k images per class: mean and spread over draws.

    The protocol of Goyal et al. 2019 (arXiv 1905.01235) and VISSL: one-versus-rest linear SVMs on
    features of length 1, five draws. VISSL reports the C that is best on the test images; here it
    is the one that is best, in the mean over the draws, on train images that no draw contains. A
    draw of k images per class contains that of k - 1. Processes share out the draws.

    Metrics, in [0, 1]: accuracy on the test images, its mean `top1_svm_k1` and standard deviation
    `top1_svm_k1_std` over the draws for every classifier and k; `top1`, `top1_std` for the first of
    each.

    Args:
        shots: k, images per class; VISSL has 1, 2, 4, 8, 16, 32, 64, 96. Of a class that has fewer
            all are taken.
        draws: random choices of images, five as in VISSL.
        classifiers: "svm" (VISSL's) and "logistic", both with the same C to choose from.
        C: to choose from. With one C nothing is held out.
        held_out: share of the train images that chooses C.
        layer: trunk layer or "embedding"; default: the layer that feeds the heads.
        scale: as in `logistic`; "l2" is VISSL's.
        max_iter: of the solvers; 2000 as in VISSL.
        seed: of the held-out images and of the draws.

    Raises:
        ConfigError: a k or `draws` below 1, no classifier, no positive C, all images of one class,
            or `held_out` leaves no image on one side.
    """

    def __init__(
        self,
        shots: tuple[int, ...] = (1, 2, 4, 8, 16),
        draws: int = 5,
        classifiers: tuple[Kind, ...] = ("svm", "logistic"),
        C: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0),
        held_out: float = 0.1,
        layer: str | None = None,
        scale: Scale = "l2",
        max_iter: int = 2000,
        seed: int = 0,
    ):
        if not shots or min(shots) < 1:
            raise ConfigError(f"evaluations.low_shot.shots: {list(shots)}; needs numbers from 1")
        if draws < 1 or not classifiers:
            raise ConfigError("evaluations.low_shot: needs a draw and a classifier, at least")
        check_costs(C, max_iter, "evaluations.low_shot")
        self.shots, self.draws, self.classifiers, self.C = shots, draws, classifiers, C
        self.scale: Scale = scale
        self.held_out, self.layer, self.max_iter, self.seed = held_out, layer, max_iter, seed

    def check(self, bench: Bench) -> None:
        bench.check_layers(self.layer)

    def evaluate(self, bench: Bench) -> dict[str, float]:
        layer = self.layer or bench.model.layer
        train, test = bench.features("train", [layer]), bench.features("test", [layer])
        free, held = self._split(len(train.label_N))
        self._check_classes(bench, train.label_N[free])
        judges = [data_of(train, layer, held)] if len(held) else []
        judges.append(data_of(test, layer))
        orders = [shuffled(free, self.seed, r) for r in range(self.draws)]
        tasks = list(itertools.product(self.classifiers, self.shots, orders))

        def row(t: int) -> list[float]:
            kind, k, order = tasks[t]
            rows = first_of_each_class(train.label_N, order, k)
            return self._row(kind, data_of(train, layer, rows), judges, bench.num_classes)

        table = share_out(len(tasks), len(self.C) * (len(judges) + 1), row)
        found_SRKJ = table.view(-1, self.draws, len(self.C), len(judges) + 1)
        note_unconverged(bench, "low_shot", found_SRKJ[..., -1], self.max_iter)
        return self._metrics(found_SRKJ)

    def _row(self, kind: Kind, drawn: Data, judges: list[Data], num_classes: int) -> list[float]:
        """For every C: top 1 on each of the judges, and 1 if the solver converged."""
        weight = dict.fromkeys(drawn.label_N.tolist(), 2)  # of an image in the SVM of its class
        found = []
        for C in self.C:
            model = linear_classifier(kind, self.scale, C, self.max_iter, weight, self.seed)
            converged = fit(model, *drawn)
            found += [accuracies(model, *judge, num_classes)[0] for judge in judges]
            found.append(float(converged))
        return found

    def _metrics(self, found_SRKJ: Tensor) -> dict[str, float]:
        """The first column chooses C, the last but one is the accuracy on the test images."""
        metrics = {}
        for (kind, k), found_RKJ in zip(
            itertools.product(self.classifiers, self.shots), found_SRKJ
        ):
            top1_R = found_RKJ[:, int(found_RKJ[..., 0].mean(0).argmax()), -2]
            metrics[f"top1_{kind}_k{k}"] = top1_R.mean().item()
            metrics[f"top1_{kind}_k{k}_std"] = top1_R.std(correction=0).item()
        top1, top1_std, *_ = metrics.values()
        return {"top1": top1, "top1_std": top1_std, **metrics}

    def _split(self, images: int) -> tuple[Tensor, Tensor]:
        """Rows to draw from, and those that choose C."""
        if len(self.C) == 1:
            return torch.arange(images), torch.arange(0)
        return split(images, self.held_out, self.seed, "evaluations.low_shot.held_out")

    def _check_classes(self, bench: Bench, label_N: Tensor) -> None:
        check_two_classes(label_N)
        fewest = int(label_N.unique(return_counts=True)[1].min())
        if fewest < max(self.shots):
            bench.note(
                f"low_shot: k = {max(self.shots)}, but a class has only {fewest} train images to"
                " draw from: all of them are taken"
            )


def shuffled(rows: Tensor, seed: int, draw: int) -> Tensor:
    """Random order number `draw`."""
    return torch.from_numpy(generator(seed, 0, draw, 0, STREAM).permutation(rows.numpy()))


def first_of_each_class(label_N: Tensor, order: Tensor, k: int) -> Tensor:
    """The first k row numbers of each class in `order`, class by class.

    Args:
        order: row numbers into `label_N`.
    """
    by_class = order[label_N[order].argsort(stable=True)]
    _, count_C = label_N[by_class].unique_consecutive(return_counts=True)
    start_C = count_C.cumsum(0) - count_C
    place = torch.arange(len(by_class)) - start_C.repeat_interleave(count_C)
    return by_class[place < k]
