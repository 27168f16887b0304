"""Shape suffixes: L layers, K candidates (layer, C)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from vissl_lite import EVALUATIONS
from vissl_lite.evaluations._classifiers import (
    Data,
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
    from vissl_lite.engine.features import FeatureSet


@EVALUATIONS.register("logistic")
class Logistic:
    """Logistic regression of scikit-learn on frozen features, solved to its optimum by L-BFGS.

    The protocol of CLIP (Radford et al. 2021, arXiv 2103.00020, section A.3) and DINOv2 (Oquab et
    al. 2023, arXiv 2304.07193): C is chosen on train images held out, then the classifier is fitted
    to all train images again. Processes share out the candidates. Each holds a layer in float64;
    `linear` is for data sets that are too large for that.

    Metrics, in [0, 1]: accuracies on the test images, of every layer at its best C (`top1_res5`)
    and `top1`, `top5` of the layer that is best on the held-out images.

    Args:
        layers: trunk layers or "embedding"; default: the layer that feeds the heads.
        C: to choose from; the weight of the summed losses against the penalty 1/2 |W|^2. With one
            C and one layer nothing is held out.
        held_out: share of the train images that chooses; a tenth as in DINOv2.
        scale: "standardise" makes C comparable between layers; "l2": unit length; "none": CLIP.
        max_iter: of L-BFGS; 1000 as in CLIP and DINOv2.
        seed: of the held-out images.

    Raises:
        ConfigError: no positive C, all images of one class, or `held_out` leaves no image on one
            side.
    """

    def __init__(
        self,
        layers: tuple[str, ...] | None = None,
        C: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
        held_out: float = 0.1,
        scale: Scale = "standardise",
        max_iter: int = 1000,
        seed: int = 0,
    ):
        check_costs(C, max_iter, "evaluations.logistic")
        self.layers, self.C, self.held_out = layers, C, held_out
        self.scale: Scale = scale
        self.max_iter, self.seed = max_iter, seed

    def check(self, bench: Bench) -> None:
        bench.check_layers(*(self.layers or ()))

    def evaluate(self, bench: Bench) -> dict[str, float]:
        layers = list(self.layers or [bench.model.layer])
        train, test = bench.features("train", layers), bench.features("test", layers)
        grid = [(layer, C) for layer in layers for C in self.C]
        score = dict(zip(grid, self._held_out(bench, train, grid)))
        best = [max((g for g in grid if g[0] == layer), key=score.__getitem__) for layer in layers]
        final_L3 = self._accuracies(bench, best, partial(data_of, train), partial(data_of, test))
        note_unconverged(bench, "logistic", final_L3[:, 2], self.max_iter)
        rows = dict(zip(best, final_L3.tolist()))
        top1, top5, _ = rows[max(best, key=score.__getitem__)]
        return {"top1": top1, "top5": top5, **{f"top1_{g[0]}": rows[g][0] for g in best}}

    def _held_out(
        self, bench: Bench, train: FeatureSet, grid: list[tuple[str, float]]
    ) -> list[float]:
        """Accuracy of every candidate on held-out train images, fitted to the others."""
        check_two_classes(train.label_N)
        if len(grid) == 1:
            return [1.0]  # nothing to choose
        place = "evaluations.logistic.held_out"
        fitted, held = split(len(train.label_N), self.held_out, self.seed, place)
        check_two_classes(train.label_N[fitted])
        of = partial(data_of, train)
        found_K3 = self._accuracies(bench, grid, partial(of, rows=fitted), partial(of, rows=held))
        top1_K = found_K3[:, 0]
        layer, C = grid[int(top1_K.argmax())]
        best = top1_K.max()
        bench.note(f"logistic: {layer}, C = {C:g} is best on the held-out images: {best:.4f}")
        return top1_K.tolist()

    def _accuracies(
        self,
        bench: Bench,
        grid: list[tuple[str, float]],
        train: Callable[[str], Data],
        test: Callable[[str], Data],
    ) -> Tensor:
        """[K, 3]: top 1, top 5, and 1 where the solver converged."""

        def row(k: int) -> list[float]:
            layer, C = grid[k]
            model = linear_classifier("logistic", self.scale, C, self.max_iter)
            converged = fit(model, *train(layer))
            return [*accuracies(model, *test(layer), bench.num_classes), float(converged)]

        return share_out(len(grid), 3, row)
