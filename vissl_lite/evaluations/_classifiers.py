"""Linear classifiers of scikit-learn, which is imported late: it takes a second.

Shape suffixes: N images, D features, C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vissl_lite.errors import ConfigError
from vissl_lite.evaluations._accuracy import place

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from vissl_lite.engine.bench import Bench
    from vissl_lite.engine.features import FeatureSet

Kind = Literal["logistic", "svm"]
Scale = Literal["standardise", "l2", "none"]


def linear_classifier(
    kind: Kind,
    scale: Scale,
    C: float,
    max_iter: int,
    class_weight: Mapping[int, float] | None = None,
    seed: int = 0,
) -> Pipeline:
    """A scikit-learn classifier behind the scaling of its features, not yet fitted.

        logistic:  min over W, b of  1/2 |W|^2 + C sum over n of -log softmax(W x_n + b)[label_n]
        svm:       for each class against the rest, y_n = 1 for its images and -1 for the others,
                   min over w, b of  1/2 (|w|^2 + b^2) + C sum over n of v_n max(0, 1 - y_n f_n)^2,
                   f_n = w.x_n + b, v_n = the weight of the class where y_n = 1, else 1

    With the weight 2 for every class this is the SVM of VISSL (`svm_trainer.py`). For two classes
    there is one SVM, of the second against the first, and each image has the weight of its class.

    Args:
        scale: "standardise": mean 0 and variance 1 over the images it is fitted to; "l2": the
            features of each image to length 1; "none": as they are.
        C: how much the images count against the penalty.
        max_iter: of the solver; `fit` says whether they were enough.
        class_weight: for "svm": of each class.
        seed: of the order in which the SVM's solver takes the images.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer, StandardScaler
    from sklearn.svm import LinearSVC

    steps = {"standardise": [StandardScaler()], "l2": [Normalizer()], "none": []}[scale]
    if kind == "logistic":
        return make_pipeline(*steps, LogisticRegression(C=C, max_iter=max_iter))
    state = seed % (1 << 32)  # scikit-learn takes no others
    svm = LinearSVC(C=C, class_weight=class_weight, max_iter=max_iter, random_state=state)
    svm.set_params(dual=True)  # as VISSL; the faster one where features outnumber images
    return make_pipeline(*steps, svm)


class Data(NamedTuple):
    """Features, float64, and class ids, as scikit-learn takes them."""

    x_ND: np.ndarray
    label_N: np.ndarray


def data_of(images: FeatureSet, layer: str, rows: Tensor | None = None) -> Data:
    """One layer of some images, or of all.

    Raises:
        ConfigError: as `finite`.
    """
    x_ND, label_N = finite(images, layer), images.label_N
    if rows is not None:
        x_ND, label_N = x_ND[rows], label_N[rows]
    return Data(x_ND.double().numpy(), label_N.numpy())


def finite(images: FeatureSet, layer: str) -> Tensor:
    """Features [N, D] that scikit-learn takes.

    Raises:
        ConfigError: there are nan or inf among them.
    """
    x_ND = images.features[layer]
    wrong_N = ~x_ND.isfinite().all(1)
    if wrong_N.any():
        raise ConfigError(
            f"labelled: features of layer {layer} are nan or inf for {int(wrong_N.sum()):,} of"
            f" {len(x_ND):,} images; take weights from before the training diverged, or"
            " precision=fp32"
        )
    return x_ND


def fit(model: Pipeline, x_ND: np.ndarray, label_N: np.ndarray) -> bool:
    """Fits `model` and says whether its solver reached the optimum."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the caller has a better sentence
        model.fit(x_ND, label_N)
    return bool(np.max(model[-1].n_iter_) < model[-1].max_iter)


def scores(model: Pipeline, x_ND: np.ndarray, num_classes: int) -> Tensor:
    """[N, C], the larger the likelier; nan for classes that the model was not fitted to."""
    found = model.decision_function(x_ND)
    found = np.stack([-found, found], axis=1) if found.ndim == 1 else found
    score_NC = np.full((len(x_ND), num_classes), np.nan)
    score_NC[:, model.classes_] = found
    return torch.from_numpy(score_NC)


def accuracies(model: Pipeline, x_ND: np.ndarray, label_N: np.ndarray, num_classes: int) -> list:
    """[top 1, top 5], in [0, 1]. A class that the model was not fitted to is never among them."""
    place_N = place(scores(model, x_ND, num_classes), torch.from_numpy(label_N))
    return [(place_N < top).double().mean().item() for top in (1, 5)]


def check_two_classes(label_N: Tensor) -> None:
    """There is nothing to tell apart in images of one class."""
    if len(label_N.unique()) < 2:
        raise ConfigError(
            f"labelled.train: all {len(label_N)} images to train on are of one class; a classifier"
            " needs two"
        )


def check_costs(C: Sequence[float], max_iter: int, place: str) -> None:
    """`C` and `max_iter` of the evaluation at `place` in the config."""
    if not C or min(C) <= 0:
        raise ConfigError(f"{place}.C: {list(C)}; needs numbers above 0")
    if max_iter < 1:
        raise ConfigError(f"{place}.max_iter: {max_iter}; needs 1 or more")


def note_unconverged(bench: Bench, name: str, converged: Tensor, max_iter: int) -> None:
    """Says how many classifiers are not at their optimum; `converged` is 1 for those that are."""
    if missing := int((converged < 1).sum()):
        bench.note(
            f"{name}: {missing} of {converged.numel()} classifiers did not converge in {max_iter}"
            " iterations; give smaller C or a larger max_iter"
        )
