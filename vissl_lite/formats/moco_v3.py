"""MoCo v3 (github.com/facebookresearch/moco-v3): the base encoder, a ResNet or a ViT."""

from typing import Any

from vissl_lite.formats.format import IMAGENET, WRAPPED, Format, Tensors


def _unseen(tensors: Tensors) -> dict[str, Any]:
    """Its ViT-S divides 384 channels among 12 heads (Chen et al. 2021, arXiv 2104.02057)."""
    small = "pos_embed" in tensors and tensors["pos_embed"].shape[-1] == 384
    return {"heads": 12} if small else {}


FORMAT = Format(
    "MoCo v3",
    trunk=(rf"{WRAPPED}base_encoder\.",),
    mark=rf"{WRAPPED}base_encoder\.",
    ignored={rf"{WRAPPED}momentum_encoder\.": "momentum encoder"},
    pixels=IMAGENET,
    unseen=_unseen,
)
