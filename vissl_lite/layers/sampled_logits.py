"""Logits of so many classes that a step looks at some of them only.

Legend: V crops, B images, N = V * B rows, D features, K classes, S sampled classes, T pairs
(image, class) of an image and one of its own classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from vissl_lite.errors import ConfigError
from vissl_lite.layers.precision import at_least_fp32


@dataclass
class SampledLogits:
    """Stands for logits x w^T + b, [V, B, K], of which only an image's own classes and S are made.

        sample_S ~ uniform, without replacement, the same for all images of this process
        Z_b = sum over own classes of exp z  +  (K - k_b) / n_b  sum over the rest of the sample

    where k_b counts the classes of image b and n_b those of the sample that are none of them. Over
    samples the mean of Z_b is the sum over all K classes; its logarithm is a little too small
    (Bengio and Senecal 2003, Quick training of probabilistic neural nets by importance sampling).
    With S = K nothing is estimated.

    Attributes:
        x_ND: features.
        layer: weights [K, D] and biases [K] of all classes.
        sample_S: class ids, rising.
        dtype: of the products; what follows them is at least fp32.
        rows: (N,), or (V, B) after `unflatten`.
    """

    x_ND: Tensor
    layer: nn.Linear
    sample_S: Tensor
    dtype: torch.dtype
    rows: tuple[int, ...]

    @classmethod
    def of(cls, x_ND: Tensor, layer: nn.Linear, classes: int) -> SampledLogits:
        """A sample by the device's random numbers, which follow from seed, step and rank."""
        device, known = x_ND.device, layer.out_features
        sample_S = torch.randperm(known, device=device)[:classes].sort().values
        dtype = torch.promote_types(x_ND.dtype, layer.weight.dtype)
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        return cls(x_ND, layer, sample_S, dtype, tuple(x_ND.shape[:1]))

    @property
    def shape(self) -> torch.Size:
        return torch.Size((*self.rows, self.layer.out_features))

    def unflatten(self, dim: int, sizes: tuple[int, ...]) -> SampledLogits:
        """As of a tensor; only the rows, `dim` 0, can be unflattened."""
        assert dim == 0
        return replace(self, rows=sizes)

    def clone(self) -> SampledLogits:
        """As of a tensor."""
        return replace(self, x_ND=self.x_ND.clone())

    def softmax(self, class_T: Tensor, image_T: Tensor | None = None) -> tuple[Tensor, ...]:
        """lse_VB, an estimate; z_VT of the pairs; argmax_VB among the sample and an image's own.

        Args:
            class_T: own classes of the images, each once; -1 is no class and gives 0.
            image_T: without it there is one class per image, T = B.
        """
        z_VT, z_VBS, log_weight_B1 = self._scores(class_T, image_T)
        image_T = _images(class_T, image_T)
        own_VT = z_VT.masked_fill(class_T < 0, -math.inf)
        rest_VBS = z_VBS + log_weight_B1
        top_VB = _amax(rest_VBS.amax(-1), own_VT, image_T).detach()
        total_VB = (rest_VBS - top_VB[..., None]).exp().sum(-1)
        own_exp_VT = (own_VT - top_VB[:, image_T]).exp()
        lse_VB = total_VB.index_add(1, image_T, own_exp_VT).log() + top_VB
        return lse_VB, z_VT, self._argmax(z_VBS, own_VT, class_T, image_T)

    def sigmoid(self, class_T: Tensor, image_T: Tensor | None = None) -> tuple[Tensor, ...]:
        """softplus_VB = sum_k log(1 + exp z_k), an unbiased estimate; z_VT of the pairs."""
        z_VT, z_VBS, log_weight_B1 = self._scores(class_T, image_T)
        rest_VB = (-F.logsigmoid(-z_VBS) * log_weight_B1.exp()).sum(-1)
        own_VT = (-F.logsigmoid(-z_VT)).masked_fill(class_T < 0, 0)
        return rest_VB.index_add(1, _images(class_T, image_T), own_VT), z_VT

    def mean(self) -> Tensor:
        """[V, B]: mean over all classes, as x . mean(w) + mean(b): no logits are made."""
        x_VBD = at_least_fp32(self.x_ND).unflatten(0, self.rows)
        return x_VBD @ self.layer.weight.mean(0) + self.layer.bias.mean()

    def dot(self, q_BK: Tensor) -> Tensor:
        """
        Raises:
            ConfigError: always; probabilities of all classes ask for all logits.
        """
        raise ConfigError("loss: targets over all classes need all logits; take the head 'linear'")

    # ---------------------------------------------------------------- some of the logits

    def _scores(self, class_T: Tensor, image_T: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """z_VT of the pairs; z_VBS of the sample, -inf for an image's own; log (K - k_b) / n_b."""
        image_T = _images(class_T, image_T)
        x_VBD = self.x_ND.unflatten(0, self.rows)
        z_VBS = self._product(lambda w, b: F.linear(x_VBD.to(w), w, b), self.sample_S)
        z_VT = self._product(
            lambda w, b: (x_VBD[:, image_T].to(w) * w).sum(-1) + b, class_T.clamp(min=0)
        ).masked_fill(class_T < 0, 0)
        own_BS = self._own(class_T, image_T, z_VBS.shape[1])
        classes_B = image_T.new_zeros(len(own_BS)).index_add_(0, image_T, (class_T >= 0).long())
        others_B = (~own_BS).sum(1).clamp(min=1)
        weight_B = (self.layer.out_features - classes_B) / others_B
        return z_VT, z_VBS.masked_fill(own_BS, -math.inf), weight_B.to(z_VBS).log()[:, None]

    def _product(self, score: Callable[[Tensor, Tensor], Tensor], classes: Tensor) -> Tensor:
        weight, bias = (p[classes].to(self.dtype) for p in (self.layer.weight, self.layer.bias))
        return at_least_fp32(score(weight, bias))

    def _own(self, class_T: Tensor, image_T: Tensor, images: int) -> Tensor:
        """[B, S]: which of the sample are classes of the image; a column more takes the others."""
        size = len(self.sample_S)
        place_T = torch.searchsorted(self.sample_S, class_T).clamp(max=size - 1)
        hit_T = self.sample_S[place_T] == class_T
        own = hit_T.new_zeros(images, size + 1)
        own[image_T, place_T.where(hit_T, size)] = hit_T
        return own[:, :size]

    def _argmax(self, z_VBS: Tensor, own_VT: Tensor, class_T: Tensor, image_T: Tensor) -> Tensor:
        best_VB, place_VB = z_VBS.max(-1)
        best_own_VB = _amax(torch.full_like(best_VB, -math.inf), own_VT, image_T)
        is_best_VT = own_VT == best_own_VB[:, image_T]
        own_class_VT = torch.where(is_best_VT, class_T, -1)
        best_class_VB = _amax(torch.full_like(place_VB, -1), own_class_VT, image_T)
        return torch.where(best_own_VB >= best_VB, best_class_VB, self.sample_S[place_VB])


def _images(class_T: Tensor, image_T: Tensor | None) -> Tensor:
    return torch.arange(len(class_T), device=class_T.device) if image_T is None else image_T


def _amax(start_VB: Tensor, x_VT: Tensor, image_T: Tensor) -> Tensor:
    """[V, B]: the largest of each image, and of `start`."""
    index_VT = image_T.expand(x_VT.shape)
    return start_VB.detach().scatter_reduce(1, index_VT, x_VT.detach(), "amax")


# so that FSDP and DDP find the features when they look for tensors to hook
pytree.register_pytree_node(
    SampledLogits,
    lambda z: ([z.x_ND], (z.layer, z.sample_S, z.dtype, z.rows)),
    lambda x, rest: SampledLogits(*x, *rest),
)
