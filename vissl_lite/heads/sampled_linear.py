"""Legend: N rows, K classes."""

from typing import Annotated

from torch import Tensor

from vissl_lite import HEADS
from vissl_lite.heads.linear import Linear
from vissl_lite.layers.sampled_logits import SampledLogits
from vissl_lite.schema import at_least


@HEADS.register("sampled_linear")
class SampledLinear(Linear):  # pyright: ignore[reportGeneralTypeIssues]
    """Classifier for the largest vocabularies: trains on a sample of the classes, a scorer.

    As `linear`, but in training `layers/sampled_logits.py: SampledLogits` of each image's own
    classes and of `sampled` others, drawn anew at each step and process, so that neither the logits
    nor their gradients of all K classes are ever made; in evaluation all logits. For
    hashtag_softmax, cross_entropy with class ids, and binary_cross_entropy with target: tags.
    Training metrics such as `precision@1` are among the sampled classes, and so too good.

    Args:
        sampled: classes besides an image's own.
        out_dim: number of classes; null takes that of the source.

    Raises:
        ConfigError: nobody says how many classes there are.
    """

    def __init__(
        self,
        sampled: Annotated[int, at_least(1)] = 8192,
        out_dim: Annotated[int | None, at_least(1)] = None,
        *,
        in_dim: int,
        num_classes: int | None = None,
    ):
        super().__init__(out_dim, in_dim=in_dim, num_classes=num_classes)
        self.sampled = min(sampled, self.out_dim)

    def forward(self, x_ND: Tensor) -> Tensor | SampledLogits:  # pyright: ignore
        if not self.training:
            return super().forward(x_ND)  # pyright: ignore
        return SampledLogits.of(x_ND, self, self.sampled)
