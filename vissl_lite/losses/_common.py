"""What several losses share.

Legend: V crops, B images of this process, K classes or prototypes, T pairs (image, class).
"""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from vissl_lite import ConfigError
from vissl_lite.layers.precision import at_least_fp32
from vissl_lite.parallel.collectives import all_reduce_sum, world_size


class Logits(Protocol):
    """What a loss may ask of logits z [V, B, K] whose classes may be spread over processes.

    Answers are differentiable and at least fp32. Pairs are (image_T, class_T), or without `image_T`
    one class per image, T = B; an answer to a class outside 0 .. K - 1 means nothing.
    """

    @property
    def shape(self) -> torch.Size: ...

    def softmax(self, class_T: Tensor, image_T: Tensor | None = None) -> tuple[Tensor, ...]:
        """lse_VB = log sum_k exp z_k; z_VT of the pairs; argmax_VB."""
        ...

    def sigmoid(self, class_T: Tensor, image_T: Tensor | None = None) -> tuple[Tensor, ...]:
        """softplus_VB = sum_k log(1 + exp z_k); z_VT of the pairs."""
        ...

    def mean(self) -> Tensor:
        """[V, B]: mean over classes."""
        ...

    def dot(self, q_BK: Tensor) -> Tensor:
        """[V, B]: sum_k q_k z_k."""
        ...


class DenseLogits:
    """`Logits` of one tensor [V, B, K]."""

    def __init__(self, z_VBK: Tensor):
        self.z_VBK = at_least_fp32(z_VBK)

    @property
    def shape(self) -> torch.Size:
        return self.z_VBK.shape

    def softmax(self, class_T: Tensor, image_T: Tensor | None = None) -> tuple[Tensor, ...]:
        z_VT = self._at(class_T, image_T)
        return self.z_VBK.logsumexp(-1), z_VT, self.z_VBK.argmax(-1)

    def sigmoid(self, class_T: Tensor, image_T: Tensor | None = None) -> tuple[Tensor, ...]:
        return -F.logsigmoid(-self.z_VBK).sum(-1), self._at(class_T, image_T)

    def mean(self) -> Tensor:
        return self.z_VBK.mean(-1)

    def dot(self, q_BK: Tensor) -> Tensor:
        return (self.z_VBK * q_BK).sum(-1)

    def _at(self, class_T: Tensor, image_T: Tensor | None) -> Tensor:
        image_T = torch.arange(len(class_T), device=class_T.device) if image_T is None else image_T
        return self.z_VBK[:, image_T, class_T]


def logits_of(outputs: Any, loss: str) -> list[Logits]:
    """Of every scorer output.

    Raises:
        ConfigError: the model ends without a scorer.
    """
    if not outputs.logits:
        raise ConfigError(
            f"loss: {loss} needs scores; end the heads with a scorer, 'linear' or 'prototypes'"
        )
    return [DenseLogits(z) if isinstance(z, Tensor) else z for z in outputs.logits]


def scores_of(outputs: Any, loss: str) -> list[Tensor]:
    """[V, B, K] of every scorer output, at least fp32, for losses that need all classes at hand.

    Raises:
        ConfigError: the model ends without a scorer, or with one whose classes are sharded.
    """
    heads = logits_of(outputs, loss)
    dense = [head.z_VBK for head in heads if isinstance(head, DenseLogits)]
    if len(dense) < len(heads):
        raise ConfigError(
            f"loss: {loss} needs the scores of all classes in one place; set shard_classes: false"
            " on the linear head"
        )
    return dense


def mean_over_all(total: Tensor, count: Tensor) -> Tensor:
    """`total / count`, with the count of all processes together, times their number.

    Ranks may count differently (untagged images, ignored labels). The mean over ranks of this
    value is the mean over all that was counted, and so are its gradients; it is 0 where nothing
    was counted anywhere. `total` may be a vector of sums that share the count.
    """
    return total * world_size() / all_reduce_sum(count).clamp(min=1)
