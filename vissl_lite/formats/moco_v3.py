"""MoCo v3 (github.com/facebookresearch/moco-v3): the base encoder, a ResNet or a ViT."""

from vissl_lite.errors import ConfigError
from vissl_lite.formats.format import IMAGENET, WRAPPED, Format, Tensors


def _check(tensors: Tensors) -> None:
    """Its ViT-S divides 384 channels among 12 heads, which no shape shows."""
    if "pos_embed" in tensors and tensors["pos_embed"].shape[-1] == 384:
        raise ConfigError(
            "weights: MoCo v3's ViT-S has 12 attention heads and the trunk vit of size small 6;"
            " take its ViT-B or ResNet-50"
        )


FORMAT = Format(
    "MoCo v3",
    trunk=(rf"{WRAPPED}base_encoder\.",),
    mark=rf"{WRAPPED}base_encoder\.",
    ignored={rf"{WRAPPED}momentum_encoder\.": "momentum encoder"},
    pixels=IMAGENET,
    check=_check,
)
