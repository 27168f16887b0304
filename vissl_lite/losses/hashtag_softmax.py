"""Legend: V crops, B images, K classes, T tags of all B images."""

from typing import Any

import torch
from torch import Tensor, nn

from vissl_lite import LOSSES
from vissl_lite.data.batch import Batch, Tags
from vissl_lite.losses._common import Logits, logits_of, mean_over_all


def hashtag_sums(z: Logits, tags: Tags) -> Tensor:
    """[2], sums over images, means over crops, of the cross-entropy with target 1/k on k tags ...

        l_b = logsumexp(z_b) - mean_{h in tags_b} z_bh
            = sum_{h in tags_b} (logsumexp(z_b) - z_bh) / k_b

    ... and of the hits: the highest score is one of the tags. The tags of an image must be
    distinct (`Tags.pack` sees to it). An image without tags is in no pair (b, h) and adds nothing.
    Never a dense [B, K] target.
    """
    image_T = tags.rows_T()
    lse_VB, z_VT, argmax_VB = z.softmax(tags.values_T, image_T)
    loss_VT = (lse_VB[:, image_T] - z_VT) / tags.counts_B()[image_T]
    hit_VT = argmax_VB[:, image_T] == tags.values_T
    return torch.stack([loss_VT.sum(), hit_VT.sum()]) / len(lse_VB)


@LOSSES.register("hashtag_softmax")
class HashtagSoftmax(nn.Module):
    """Hashtag prediction: softmax cross-entropy with target 1/k on each of the k tags of an image.

    Takes logits [V, B, K], dense or sharded by class, and ragged tags. The mean is over the images
    of all processes that have a tag; with gradient accumulation, of one micro-batch. Images without
    a tag have zero weight; a batch without any tag gives loss 0 and gradient 0. Metrics:
    `precision@1`, the share of tagged images whose highest score is one of their tags; `untagged`,
    the share of this process' images without a tag. Source: Mahajan et al. 2018, arXiv 1805.00932.
    """

    needs = ("tags",)
    needs_scores = True

    def forward(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        assert batch.tags is not None
        tags, heads = batch.tags, logits_of(outputs, "hashtag_softmax")
        sums = torch.stack([hashtag_sums(z, tags) for z in heads]).mean(0)
        tagged_B = tags.counts_B() > 0
        loss, precision = mean_over_all(sums, tagged_B.sum())
        untagged = 1 - tagged_B.float().mean()
        return {"loss": loss, "precision@1": precision.detach(), "untagged": untagged}
