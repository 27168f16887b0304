"""Trunk, pool and heads as one module; an EMA teacher beside it where a loss asks for one.

Shape suffixes: V crops of all view groups together, B images, N = V * B, F trunk features,
D embedding, K logits of a scorer.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from vissl_lite.errors import ConfigError
from vissl_lite.layers.precision import at_least_fp32
from vissl_lite.parallel.class_shards import ShardedLogits
from vissl_lite.parallel.shards import local

EMBEDDING = "embedding"  # as a layer: the output of the last head that is no scorer
LOGITS = "logits"  # likewise: all outputs of the scorer, one after the other
OF_HEADS = (EMBEDDING, LOGITS)


@dataclass
class Outputs:
    """What a forward pass leaves for the loss.

    Attributes:
        features: [V, B, F] pooled trunk output.
        embedding: [V, B, D] output of the last head that is no scorer; the features without one.
        logits: [V, B, K] for every output of the scorer; empty without one.
        model: the model that made them.
        teacher: the same of the EMA teacher, without gradient, or None.
    """

    features: Tensor
    embedding: Tensor
    logits: list[Tensor] = field(default_factory=list)
    model: SSLModel | None = None
    teacher: Outputs | None = None


def _flatten(outputs: Outputs) -> tuple[list[Any], None]:
    return [getattr(outputs, f.name) for f in fields(Outputs)], None


# so that wrappers which hook into the backward pass find the tensors
pytree.register_pytree_node(Outputs, _flatten, lambda values, _: Outputs(*values))


class SSLModel(nn.Module):
    """Images of several resolutions in, features, embeddings and logits out.

        f = pool(trunk([normalise(crops) for each resolution]))                 # one pass
        z = heads(concatenation of all f)                                       # one pass

    BatchNorm in the trunk hence sees each resolution for itself, in the heads all crops together,
    as in SwAV's code (Caron et al. 2020).

    Args:
        trunk: any entry of TRUNKS.
        heads: a chain; a scorer may only be the last.
        mean, std: of the pixels in [0, 1], per channel.
        layer: trunk layer that is used, default: its last.
        pool: "avg" for the mean over the map; "none" where the layer gives vectors.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        heads: Sequence[nn.Module] = (),
        *,
        mean: Sequence[float],
        std: Sequence[float],
        layer: str | None = None,
        pool: str = "avg",
        memory_format: torch.memory_format = torch.contiguous_format,
    ):
        super().__init__()
        self.trunk, self.heads = trunk, nn.ModuleList(heads)
        self.layer = layer or list(trunk.widths)[-1]  # pyright: ignore
        self.pool, self.memory_format = pool, memory_format
        self.trunk_frozen = False
        self.teacher: SSLModel | None = None
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1) * 255, persistent=False)

    @property
    def scorer(self) -> nn.Module | None:
        """The last head, if it gives logits."""
        last = self.heads[-1] if len(self.heads) else None
        return last if getattr(last, "scorer", False) else None

    def forward(self, views: Sequence[Tensor]) -> Outputs:
        """Runs all crops.

        Args:
            views: uint8 [V_g, B, H, W, C] per view group.
        """
        count, batch = sum(len(view) for view in views), views[0].shape[1]
        features_NF = self._features(views)
        embedding_ND, logits_NK = features_NF, []
        for head in self.heads:
            if getattr(head, "scorer", False):
                scores = head(embedding_ND)
                logits_NK = scores if isinstance(scores, list) else [scores]
            else:
                embedding_ND = head(embedding_ND)
        # copies, for a loss may change them in place, and FSDP2 loses track of a view that changes
        by_crop = [x.unflatten(0, (count, batch)).clone() for x in (features_NF, embedding_ND)]
        scores = [logits.unflatten(0, (count, batch)).clone() for logits in logits_NK]
        outputs = Outputs(*by_crop, scores, model=self)
        if self.teacher is not None and self.training:
            with torch.no_grad():
                outputs.teacher = self.teacher(views)
        return outputs

    def _features(self, views: Sequence[Tensor]) -> Tensor:
        """[N, F], crops in the order of `views`; those of one resolution are one batch."""
        by_size: dict[torch.Size, list[int]] = {}
        for g, view in enumerate(views):
            by_size.setdefault(view.shape[2:], []).append(g)
        crops = [
            self.normalise(torch.cat([views[g].flatten(0, 1) for g in groups]))
            for groups in by_size.values()
        ]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.trunk_frozen):
            maps = self._trunk_maps(crops)
        features: dict[int, Tensor] = {}
        for groups, x in zip(by_size.values(), maps):
            lengths = [views[g].shape[0] * views[g].shape[1] for g in groups]
            features.update(zip(groups, self.pooled(x).split(lengths)))
        return torch.cat([features[g] for g in range(len(views))])

    def _trunk_maps(self, crops: list[Tensor]) -> list[Tensor]:
        if getattr(self.trunk, "takes_lists", False):
            return self.trunk(crops, (self.layer,))[self.layer]
        return [self.trunk(x_NCHW, (self.layer,))[self.layer] for x_NCHW in crops]

    def layer_features(self, images_BHWC: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """[B, F] for every layer, one pass through the trunk.

        Ranks call it together where the model is sharded; they may differ in the number of images.

        Args:
            images_BHWC: uint8.
            layers: of the trunk, averaged over their maps in float32, or "embedding", the output
                of the last head that is no scorer, or "logits", those of the scorer.
        """
        wanted = dict.fromkeys(self.layer if layer in OF_HEADS else layer for layer in layers)
        outputs = self.trunk(self.normalise(images_BHWC), tuple(wanted))
        found = {layer: _averaged(outputs[layer]) for layer in layers if layer not in OF_HEADS}
        if set(OF_HEADS) & set(layers):
            z_BD = self.pooled(outputs[self.layer])
            for head in self.heads[: len(self.heads) - (self.scorer is not None)]:
                z_BD = head(z_BD)
            found[EMBEDDING] = z_BD
        if LOGITS in layers and self.scorer is not None:
            scores = self.scorer(z_BD)
            found[LOGITS] = torch.cat(scores, 1) if isinstance(scores, list) else _whole(scores)
        return {layer: found[layer] for layer in layers}

    def normalise(self, images_NHWC: Tensor) -> Tensor:
        """uint8 pixels to float [N, C, H, W], (x / 255 - mean) / std, in the chosen layout."""
        x = images_NHWC.permute(0, 3, 1, 2).to(self.mean.dtype, memory_format=self.memory_format)
        return x.sub_(self.mean).div_(self.std)

    def pooled(self, x: Tensor) -> Tensor:
        """[N, F] from a map [N, F, H, W]; vectors pass.

        Raises:
            ConfigError: a map of more than one pixel with `pool` "none".
        """
        if x.ndim == 4 and self.pool == "avg":
            return x.mean(dim=(2, 3))
        if x.ndim == 4 and x.shape[2] * x.shape[3] > 1:
            raise ConfigError(
                f"pool: none, but layer {self.layer!r} gives maps of {x.shape[2]} x {x.shape[3]};"
                " set pool=avg, or a layer that gives vectors"
            )
        return x.flatten(1)

    def freeze_trunk(self) -> None:
        """Keeps the trunk as it is, its BatchNorm statistics included."""
        self.trunk_frozen = True
        self.trunk.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> SSLModel:
        super().train(mode)
        if self.trunk_frozen:
            self.trunk.eval()
        return self

    def add_teacher(self) -> None:
        """A copy of this model, without the predictor, that follows it by `update_teacher`."""
        teacher = copy.deepcopy(self)
        kept = [head for head in teacher.heads if not getattr(head, "student_only", False)]
        teacher.heads = nn.ModuleList(kept)
        self.teacher = teacher.requires_grad_(False)

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """teacher <- momentum * teacher + (1 - momentum) * student, parameters only."""
        if self.teacher is None:
            return
        student = dict(self.named_parameters())
        theirs, ours = zip(
            *((p, student[name]) for name, p in self.teacher.named_parameters() if name in student)
        )
        torch._foreach_lerp_(local(theirs), local(ours), 1 - momentum)

    @torch.no_grad()
    def after_step(self) -> None:
        """What heads do after every optimizer step, such as normalising prototypes."""
        for head in self.heads:
            if hasattr(head, "after_step"):
                head.after_step()


def _whole(logits: Tensor | ShardedLogits) -> Tensor:
    """[B, K], also where the classes are spread over processes."""
    return logits.full() if isinstance(logits, ShardedLogits) else logits


def _averaged(x: Tensor) -> Tensor:
    """[B, F] from a map [B, F, H, W], summed in float32 or float64; vectors pass."""
    return at_least_fp32(x).mean(dim=(2, 3)) if x.ndim == 4 else x
