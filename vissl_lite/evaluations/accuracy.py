"""Shape suffixes: M test images, C classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vissl_lite import EVALUATIONS, ConfigError
from vissl_lite.evaluations._accuracy import place
from vissl_lite.model import LOGITS

if TYPE_CHECKING:
    from vissl_lite.engine.bench import Bench


@EVALUATIONS.register("accuracy")
class Accuracy:
    """Accuracy of the model's own classifier on the test images: nothing is fitted.

    For models trained with labels, whose last head is `linear`. Metrics, in [0, 1]: `top1`, `top5`.
    Of equal scores the smaller class id comes first.

    Raises:
        ConfigError: the model has no classifier, or one of other classes.
    """

    def check(self, bench: Bench) -> None:
        check_scorer(bench, "evaluations.accuracy", "take the evaluation linear")

    def evaluate(self, bench: Bench) -> dict[str, float]:
        self.check(bench)
        test = bench.features("test", [LOGITS])
        place_M = place(test.features[LOGITS], test.label_N)
        return {f"top{k}": (place_M < k).double().mean().item() for k in (1, 5)}


def check_scorer(bench: Bench, where: str, instead: str) -> None:
    """The model's own classifier, for the evaluation at `where` in the config.

    Raises:
        ConfigError: there is none, or it has other classes; `instead` is the remedy.
    """
    scorer = bench.model.scorer
    if scorer is None:
        raise ConfigError(
            f"{where}: the model has no classifier; train one with heads=[linear], or {instead}"
        )
    if scorer.out_dim != bench.num_classes:
        raise ConfigError(
            f"{where}: the classifier has {scorer.out_dim:,} outputs, the labelled images have"
            f" {bench.num_classes:,} classes; take labelled images of the classes that it was"
            f" trained on, or {instead}"
        )
