"""Shape suffixes: N train images, M test images, D features, T tags, C kinds of tags, V of them
judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import numpy as np
import torch

from vissl_lite import EVALUATIONS, ConfigError
from vissl_lite.evaluations._classifiers import (
    Data,
    Kind,
    Scale,
    check_costs,
    finite,
    fit,
    linear_classifier,
    note_unconverged,
)
from vissl_lite.evaluations._ranks import share_out
from vissl_lite.schema import at_least

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from vissl_lite.data.batch import Tags
    from vissl_lite.engine.bench import Bench


@EVALUATIONS.register("multilabel")
class Multilabel:
    """A linear classifier per tag on frozen features, mean average precision; for tagged images.

    VISSL's protocol for VOC07 (`svm_trainer.py`; Goyal et al. 2019, arXiv 1905.01235): for each tag
    a linear SVM of the images with it against those without, on features of length 1; C is chosen
    per tag by average precision in stratified cross-validation on the train images. Average
    precision is the area under the steps of precision over recall (scikit-learn's), not VISSL's
    interpolated one. Processes share out the tags.

    Judged are tags that enough train images have, and lack, for every fold, and that a test image
    has; how many others were left out is noted. Metric, in [0, 1]: `mAP`, their mean.

    Args:
        classifier: "svm" as in VISSL, or "logistic".
        C: to choose from; with one C there is no cross-validation.
        folds: of the cross-validation, 3 in VISSL.
        layer: trunk layer or "embedding"; default: the layer that feeds the heads.
        scale: as in `logistic`; "l2" is VISSL's.
        max_iter: of the solver; 2000 as in VISSL.
        seed: of the SVM's solver.

    Raises:
        ConfigError: no positive C, fewer than two folds, images without tags, or no tag to judge.
    """

    def __init__(
        self,
        classifier: Kind = "svm",
        C: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0),
        folds: Annotated[int, at_least(2)] = 3,
        layer: str | None = None,
        scale: Scale = "l2",
        max_iter: int = 2000,
        seed: int = 0,
    ):
        check_costs(C, max_iter, "evaluations.multilabel")
        self.classifier: Kind = classifier
        self.scale: Scale = scale
        self.C, self.folds, self.layer = C, folds, layer
        self.max_iter, self.seed = max_iter, seed

    def check(self, bench: Bench) -> None:
        bench.check_layers(self.layer)

    def evaluate(self, bench: Bench) -> dict[str, float]:
        layer = self.layer or bench.model.layer
        train = bench.features("train", [layer], target="tags")
        test = bench.features("test", [layer], target="tags")
        train_tags, test_tags = cast("Tags", train.tags), cast("Tags", test.tags)
        judged = self._judged(bench, train_tags, test_tags)
        x_ND, x_MD = (finite(images, layer).double().numpy() for images in (train, test))

        def row(v: int) -> list[float]:
            data = Data(x_ND, having(train_tags, judged[v]))
            model, converged = self._fitted(self._chosen(data), data)
            return [average_precision(model, x_MD, having(test_tags, judged[v])), float(converged)]

        found_V2 = share_out(len(judged), 2, row)
        note_unconverged(bench, "multilabel", found_V2[:, 1], self.max_iter)
        return {"mAP": found_V2[:, 0].mean().item()}

    def _judged(self, bench: Bench, train: Tags, test: Tags) -> list[int]:
        images = len(train.offsets) - 1
        count_C, tested_C = (
            t.values_T.bincount(minlength=bench.num_classes) for t in (train, test)
        )
        enough_C = (count_C >= self.folds) & (images - count_C >= self.folds)
        judged = (enough_C & (tested_C > 0)).nonzero()[:, 0].tolist()
        if not judged:
            raise ConfigError(
                f"labelled: no tag is on {self.folds} train images, missing on {self.folds}, and on"
                " a test image; evaluation 'multilabel' needs more images"
            )
        if len(judged) < bench.num_classes:
            bench.note(f"multilabel: {len(judged)} of {bench.num_classes} tags have enough images")
        return judged

    def _chosen(self, data: Data) -> float:
        """The C of the best average precision in cross-validation; of equal ones the first."""
        from sklearn.model_selection import StratifiedKFold

        if len(self.C) == 1:
            return self.C[0]
        folds = list(StratifiedKFold(self.folds).split(*data))
        return max(self.C, key=lambda C: sum(self._of_fold(C, data, *rows) for rows in folds))

    def _of_fold(self, C: float, data: Data, fitted: np.ndarray, held: np.ndarray) -> float:
        x_ND, has_N = data
        model, _ = self._fitted(C, Data(x_ND[fitted], has_N[fitted]))
        return average_precision(model, x_ND[held], has_N[held])

    def _fitted(self, C: float, data: Data) -> tuple[Pipeline, bool]:
        weight = {0: 1, 1: 2}  # of images without and with the tag, for the SVM
        model = linear_classifier(
            self.classifier, self.scale, C, self.max_iter, class_weight=weight, seed=self.seed
        )
        return model, fit(model, *data)


def having(tags: Tags, tag: int) -> np.ndarray:
    """[N], int64: 1 for each image that has the tag, else 0."""
    has_N = torch.zeros(len(tags.offsets) - 1, dtype=torch.int64)
    has_N[tags.rows_T()[tags.values_T == tag]] = 1
    return has_N.numpy()


def average_precision(model: Pipeline, x_ND: np.ndarray, has_N: np.ndarray) -> float:
    """Of the images in the order of the model's scores."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(has_N, model.decision_function(x_ND)))
