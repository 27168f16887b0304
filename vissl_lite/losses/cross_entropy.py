"""Legend: V crops, B images, K classes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vissl_lite import LOSSES
from vissl_lite.data.batch import Batch
from vissl_lite.layers.precision import full_precision
from vissl_lite.losses._common import mean_over_all, scores_of

IGNORED = -1


def cross_entropy_sum(z_VBK: Tensor, label: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Sum over images, mean over crops; `label` is int64 [B] (-1: ignored) or probabilities [B, K].

    Label smoothing e replaces the target q by (1 - e) q + e / K (Szegedy et al. 2015).
    """
    label = label.to(z_VBK.dtype) if label.is_floating_point() else label
    return F.cross_entropy(
        z_VBK.flatten(0, 1),
        torch.cat([label] * len(z_VBK)),
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
        reduction="sum",
    ) / len(z_VBK)


@LOSSES.register("cross_entropy")
class CrossEntropy(nn.Module):
    """Softmax cross-entropy with class ids or probabilities.

    Takes logits [V, B, K] and `label_B`: int64 [B], where -1 leaves an image out of the mean, or
    float [B, K] rows that sum to 1 (mixed or distilled labels). All crops are averaged. The mean is
    over the labelled images of all processes; 0 when there are none. Metric: `top1`, the share of
    labelled images whose highest score is the (most probable) label.

    Args:
        label_smoothing: e in [0, 1), see `cross_entropy_sum`; 0.1 is usual for fine-tuning.
    """

    needs = ("label",)

    def __init__(self, label_smoothing: float = 0.0):
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        assert batch.label_B is not None
        label, heads = batch.label_B, scores_of(outputs, "cross_entropy")
        class_B = label.argmax(-1) if label.is_floating_point() else label
        with full_precision(heads[0]):
            losses = [cross_entropy_sum(z, label, self.label_smoothing) for z in heads]
        hits = [(z.argmax(-1) == class_B).sum().to(z.dtype) / len(z) for z in heads]
        sums = torch.stack([torch.stack(losses).mean(), torch.stack(hits).mean()])
        loss, top1 = mean_over_all(sums, (class_B != IGNORED).sum())
        return {"loss": loss, "top1": top1.detach()}
