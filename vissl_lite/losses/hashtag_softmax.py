"""Legend: V crops, B images, K classes, T tags of all B images."""

from typing import Any

import torch
from torch import Tensor, nn

from vissl_lite import LOSSES
from vissl_lite.data.batch import Batch, Tags
from vissl_lite.layers.precision import full_precision
from vissl_lite.losses._common import mean_over_all, scores_of


def hashtag_sum(z_VBK: Tensor, tags: Tags) -> Tensor:
    """Sum over images, mean over crops, of the cross-entropy with target 1/k on the k tags.

        l_b = logsumexp(z_b) - mean_{h in tags_b} z_bh
            = sum_{h in tags_b} (logsumexp(z_b) - z_bh) / k_b

    The tags of an image must be distinct (`Tags.pack` sees to it). An image without tags is in no
    pair (b, h) and adds nothing. Never a dense [B, K] target.
    """
    image_T = tags.rows_T()
    lse_VB = z_VBK.logsumexp(-1)
    loss_VT = lse_VB[:, image_T] - z_VBK[:, image_T, tags.values_T]
    return (loss_VT / tags.counts_B()[image_T]).sum() / len(z_VBK)


def hits(z_VBK: Tensor, tags: Tags) -> Tensor:
    """Number of images whose highest score is one of their tags, averaged over crops."""
    hit_VT = z_VBK.argmax(-1)[:, tags.rows_T()] == tags.values_T
    return hit_VT.sum().to(z_VBK.dtype) / len(z_VBK)


@LOSSES.register("hashtag_softmax")
class HashtagSoftmax(nn.Module):
    """Hashtag prediction: softmax cross-entropy with target 1/k on each of the k tags of an image.

    Takes logits [V, B, K] and ragged tags. The mean is over the images of all processes that have
    a tag; with gradient accumulation, of one micro-batch. Images without a tag have zero weight; a
    batch without any tag gives loss 0 and gradient 0. Metrics: `precision@1`, the share of tagged
    images whose highest score is one of their tags; `untagged`, the share of this process'
    images without a tag. Source: Mahajan et al. 2018, arXiv 1805.00932.
    """

    needs = ("tags",)

    def forward(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        assert batch.tags is not None
        tags, heads = batch.tags, scores_of(outputs, "hashtag_softmax")
        with full_precision(heads[0]):
            total = torch.stack([hashtag_sum(z_VBK, tags) for z_VBK in heads]).mean()
        right = torch.stack([hits(z_VBK, tags) for z_VBK in heads]).mean()
        tagged_B = tags.counts_B() > 0
        loss, precision = mean_over_all(torch.stack([total, right]), tagged_B.sum())
        untagged = 1 - tagged_B.float().mean()
        return {"loss": loss, "precision@1": precision.detach(), "untagged": untagged}
