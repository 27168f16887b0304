"""Shape suffixes: M test images, D features, K kinds of corruption, S severities."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from vissl_lite import EVALUATIONS, TRANSFORMS, ConfigError
from vissl_lite.evaluations._classifiers import (
    check_costs,
    check_two_classes,
    data_of,
    fit,
    linear_classifier,
    note_unconverged,
)
from vissl_lite.evaluations.accuracy import check_scorer
from vissl_lite.evaluations.knn import knn_predict
from vissl_lite.io import replace_text
from vissl_lite.model import LOGITS
from vissl_lite.parallel.collectives import all_reduce_sum, on_rank_zero, rank, world_size

if TYPE_CHECKING:
    from vissl_lite.config import Labelled
    from vissl_lite.engine.bench import Bench
    from vissl_lite.engine.features import FeatureSet

SEVERITIES = 5  # of the transform `corruption`
MAX_ITER = 1000  # of the logistic regression, as in `logistic`

Rule = Callable[[Tensor], Tensor]  # features [M, D] -> class ids [M], on the CPU


@EVALUATIONS.register("robustness")
class Robustness:
    """Accuracy on corrupted test images of a classifier of clean ones: ImageNet-C's protocol.

    Hendrycks and Dietterich 2019 (arXiv 1903.12261): a classifier that was fitted to the features
    of clean train images is judged on the test images under every corruption at every severity, by
    the transform `corruption` after the labelled ones; its docstring says where the images differ
    from ImageNet-C's and CIFAR-10-C's. A forward pass over the test images for each of the 75.
    An image gets the same random numbers under all of them.

    Metrics, in [0, 1]: `top1`, the mean over kinds and severities; `top1_clean`; `top1_drop`, the
    difference; `top1_fog` for every kind, the mean over severities. 1 - `top1` is the mean
    corruption error without weights, as published for CIFAR-10-C; the paper's mCE and relative mCE
    divide each kind's error, and its drop, by AlexNet's on ImageNet, which says nothing about other
    images. `evaluations/robustness/top1.csv` of the run has every severity.

    Args:
        corruptions: kinds of the transform `corruption`; default: all fifteen.
        severities: of 1 to 5.
        classifier: "logistic": regression on standardised features, as in `logistic` with one C;
            "knn": as in `knn`; "scorer": the model's own last head, trained on these classes.
        C: of the logistic regression; choose it with `logistic`.
        k, temperature: of the nearest neighbours, DINO's.
        layer: trunk layer or "embedding"; default: the layer that feeds the heads.

    Raises:
        ConfigError: an unknown kind or severity, a C, k or temperature that is not positive, all
            train images of one class, or no scorer that has as many outputs as there are classes.
    """

    def __init__(
        self,
        corruptions: tuple[str, ...] | None = None,
        severities: tuple[int, ...] = (1, 2, 3, 4, 5),
        classifier: Literal["logistic", "knn", "scorer"] = "logistic",
        C: float = 0.1,
        k: int = 20,
        temperature: float = 0.07,
        layer: str | None = None,
    ):
        place = "evaluations.robustness"
        check_kinds(corruptions, f"{place}.corruptions")
        if not severities or not 1 <= min(severities) <= max(severities) <= SEVERITIES:
            raise ConfigError(f"{place}.severities: {list(severities)}; needs numbers from 1 to 5")
        check_costs([C], MAX_ITER, place)
        if k < 1 or temperature <= 0:
            raise ConfigError(f"{place}: k needs to be 1 or more, and temperature above 0")
        self.kinds = all_kinds() if corruptions is None else corruptions
        self.severities, self.classifier, self.layer = severities, classifier, layer
        self.C, self.k, self.temperature = C, k, temperature

    def check(self, bench: Bench) -> None:
        if self.classifier == "scorer":
            place = "evaluations.robustness.classifier"
            check_scorer(bench, place, "choose logistic or knn")
        bench.check_layers(self.layer)

    def evaluate(self, bench: Bench) -> dict[str, float]:
        self.check(bench)
        layer = LOGITS if self.classifier == "scorer" else self.layer or bench.model.layer
        fitted = {"logistic": self._logistic, "knn": self._knn, "scorer": largest_logit}
        rule = fitted[self.classifier](bench, layer)
        clean = top1(rule, bench.features("test", [layer]), layer)
        top1_KS = [
            [self._corrupted(bench, rule, layer, kind, s) for s in self.severities]
            for kind in self.kinds
        ]
        folder = bench.files("robustness")
        if folder is not None:
            write_table(folder / "top1.csv", self.kinds, self.severities, top1_KS)
        each_K = torch.tensor(top1_KS, dtype=torch.float64).mean(1)
        mean = each_K.mean().item()
        each = {f"top1_{kind}": value for kind, value in zip(self.kinds, each_K.tolist())}
        return {"top1": mean, "top1_clean": clean, "top1_drop": clean - mean, **each}

    def _corrupted(self, bench: Bench, rule: Rule, layer: str, kind: str, severity: int) -> float:
        changed = corrupted(bench.labelled, kind, severity)
        return top1(rule, bench.seen("test", changed, [layer]), layer)

    def _logistic(self, bench: Bench, layer: str) -> Rule:
        """Fitted by rank 0, which gives it to the others."""
        train = bench.features("train", [layer])
        check_two_classes(train.label_N)
        model = linear_classifier("logistic", "standardise", self.C, MAX_ITER)
        model, converged = on_rank_zero(lambda: (model, fit(model, *data_of(train, layer))))
        note_unconverged(bench, "robustness", torch.tensor(converged), MAX_ITER)
        return lambda x_MD: torch.from_numpy(model.predict(x_MD.double().numpy()))

    def _knn(self, bench: Bench, layer: str) -> Rule:
        train = bench.features("train", [layer])
        bank = train.features[layer], train.label_N, bench.num_classes
        return lambda x_MD: knn_predict(
            x_MD.to(bench.device), *bank, self.k, self.temperature
        ).cpu()


def largest_logit(bench: Bench, layer: str) -> Rule:
    """The class that the model's last head says."""
    return lambda x_MD: x_MD.argmax(1)


def top1(rule: Rule, images: FeatureSet, layer: str) -> float:
    """Share of images that the rule gives their class; processes share out the images."""
    own = slice(rank(), None, world_size())
    x_MD, label_M = images.features[layer][own], images.label_N[own]
    hits = torch.zeros((), dtype=torch.float64)
    if len(label_M):  # scikit-learn refuses to look at no image
        hits += (rule(x_MD) == label_M).sum()
    return all_reduce_sum(hits).item() / len(images.label_N)


def corrupted(labelled: Labelled, kind: str, severity: int) -> Labelled:
    """The same view of each image, corrupted."""
    last = {"name": "corruption", "kind": kind, "severity": severity}
    return replace(labelled, transforms=[*labelled.transforms, last])


def all_kinds() -> tuple[str, ...]:
    """What `corruption` offers, in the order of the paper."""
    hint = next(p.hint for p in TRANSFORMS.parameters("corruption") if p.name == "kind")
    return get_args(hint)


def check_kinds(kinds: tuple[str, ...] | None, place: str) -> None:
    if kinds is not None and not kinds:
        raise ConfigError(f"{place}: []; needs at least one kind, or null for all")
    for i, kind in enumerate(kinds or ()):
        TRANSFORMS.check({"name": "corruption", "kind": kind}, f"{place}[{i}]")


def write_table(
    file: Path, kinds: tuple[str, ...], severities: tuple[int, ...], top1_KS: list[list[float]]
) -> None:
    """A row per kind, a column per severity."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["corruption", *(f"severity_{s}" for s in severities)])
    rows.writerows([kind, *values] for kind, values in zip(kinds, top1_KS))
    replace_text(file, table.getvalue())
