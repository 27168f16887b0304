"""Legend: V crops, B images, K classes, T tags of all B images."""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vissl_lite import LOSSES, ConfigError
from vissl_lite.data.batch import Batch, Tags
from vissl_lite.losses._common import Logits, logits_of, mean_over_all, scores_of


def bce_of_labels(z_VBK: Tensor, y_BK: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over images and classes, mean over crops, and the number of terms; y < 0 is ignored.

    l = -y log sigmoid(z) - (1 - y) log sigmoid(-z) = -log sigmoid(-z) - y z
    """
    known_BK = y_BK >= 0
    loss_VBK = -F.logsigmoid(-z_VBK) - y_BK.to(z_VBK.dtype) * z_VBK
    return loss_VBK.where(known_BK, 0).sum() / len(z_VBK), known_BK.sum()


def bce_of_tags(z: Logits, tags: Tags) -> tuple[Tensor, Tensor]:
    """The same with y = 1 on the tags of an image and 0 elsewhere, without a dense y."""
    softplus_VB, z_VT = z.sigmoid(tags.values_T, tags.rows_T())
    crops, images, classes = z.shape
    terms = torch.full((), images * classes, device=z_VT.device)
    return (softplus_VB.sum() - z_VT.sum()) / crops, terms


@LOSSES.register("binary_cross_entropy")
class BinaryCrossEntropy(nn.Module):
    """Multi-label classification: one sigmoid per class.

    Takes logits [V, B, K]; the mean is over crops and over the known (image, class) pairs of all
    processes; 0 when there are none. Mahajan et al. 2018 (arXiv 1805.00932) found it
    worse than `hashtag_softmax` for hashtags. A source with one class id per image, as
    `image_folder`, has neither target: its loss is `cross_entropy`.

    Args:
        target: `label`: `label_B` is multi-hot [B, K], -1 where unknown (Pascal VOC's difficult
            objects); `tags`, for sources with tags: the image has its tags and no other class, so
            that an image without tags is a negative of every class. Only `tags` goes with classes
            that are sharded.

    Raises:
        ConfigError: target is `label`, but the labels are class ids or the classes are sharded.
    """

    needs_scores = True

    def __init__(self, target: Literal["label", "tags"] = "label"):
        super().__init__()
        self.needs = (target,)

    def forward(self, outputs: Any, batch: Batch) -> Tensor:
        totals, counts = zip(*self._sums(outputs, batch))
        return torch.stack([mean_over_all(t, n) for t, n in zip(totals, counts)]).mean()

    def _sums(self, outputs: Any, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        name, label = "binary_cross_entropy", batch.label_B
        if self.needs == ("tags",):
            tags = cast(Tags, batch.tags)
            return [bce_of_tags(z, tags) for z in logits_of(outputs, name)]
        assert label is not None
        if label.ndim != 2:
            raise ConfigError(
                "loss: binary_cross_entropy needs multi-hot labels, but the source gives class ids;"
                " take loss=cross_entropy, or, where images have tags, loss.target=tags"
            )
        return [bce_of_labels(z_VBK, label) for z_VBK in scores_of(outputs, name)]
