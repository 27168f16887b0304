"""Legend: V crops, B images, K classes."""

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from vissl_lite import LOSSES
from vissl_lite.data.batch import Batch
from vissl_lite.losses._common import Logits, logits_of, mean_over_all
from vissl_lite.schema import between

IGNORED = -1


def class_of(label: Tensor) -> Tensor:
    """[B]: class ids as they are, of probabilities [B, K] the most probable class."""
    return label.argmax(-1) if label.is_floating_point() else label


def cross_entropy_sums(z: Logits, label: Tensor, smoothing: float = 0.0) -> Tensor:
    """[2], sums over images, means over crops, of the cross-entropy and of the hits.

        l = logsumexp(z) - sum_k q_k z_k,     q <- (1 - e) q + e / K

    with label smoothing e (Szegedy et al. 2015). `label` is int64 [B] (-1: ignored), or rows q
    [B, K] that sum to 1. A hit: the highest score is the (most probable) label.
    """
    class_B = class_of(label)
    lse_VB, target_VB, argmax_VB = z.softmax(class_B)
    if label.is_floating_point():
        target_VB = z.dot(label)
    if smoothing:
        target_VB = (1 - smoothing) * target_VB + smoothing * z.mean()
    loss_VB = (lse_VB - target_VB).where(class_B != IGNORED, 0)
    return torch.stack([loss_VB.sum(), (argmax_VB == class_B).sum()]) / len(loss_VB)


@LOSSES.register("cross_entropy")
class CrossEntropy(nn.Module):
    """Softmax cross-entropy with class ids or probabilities.

    Takes logits [V, B, K], dense or sharded by class, and `label_B`: int64 [B], where -1 leaves an
    image out of the mean, or float [B, K] rows that sum to 1 (mixed or distilled labels). All crops
    are averaged. The mean is over the labelled images of all processes; 0 when there are none.
    Metric: `top1`, the share of labelled images whose highest score is the (most probable) label.

    Args:
        label_smoothing: e in [0, 1), see `cross_entropy_sums`; 0.1 is usual for fine-tuning.
    """

    needs = ("label",)
    needs_scores = True

    def __init__(self, label_smoothing: Annotated[float, between(0, 1)] = 0.0):
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        assert batch.label_B is not None
        label, heads = batch.label_B, logits_of(outputs, "cross_entropy")
        sums = [cross_entropy_sums(z, label, self.label_smoothing) for z in heads]
        known_B = class_of(label) != IGNORED
        loss, top1 = mean_over_all(torch.stack(sums).mean(0), known_B.sum())
        return {"loss": loss, "top1": top1.detach()}
