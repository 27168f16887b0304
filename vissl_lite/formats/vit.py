"""Vision transformer: names and settings. Our names are those of timm and DINO.

Shape suffixes: T tokens, C channels.
"""

from __future__ import annotations

import math
import re
from typing import Any

from torch import Tensor

from vissl_lite.errors import ConfigError
from vissl_lite.formats.format import Naming, Tensors, shape
from vissl_lite.trunks.vit import SIZES, attention_heads


def settings(tensors: Tensors) -> dict[str, Any]:
    """Size from channels and blocks, the patch from its convolution, the image from the positions.

    Raises:
        ConfigError: channels and blocks as no size of ours has them.
    """
    channels, in_channels, patch_size, _ = shape(tensors, "patch_embed.proj.weight")
    depth = len({m[0] for name in tensors if (m := re.match(r"blocks\.\d+\.", name))})
    sizes = [
        name for name, (width, blocks, _) in SIZES.items() if (width, blocks) == (channels, depth)
    ]
    if not sizes:
        raise ConfigError(
            f"weights: a ViT of {depth} blocks with {channels} channels is none of the trunk's"
            f" sizes ({', '.join(SIZES)}); use the timm trunk"
        )
    side = math.isqrt(shape(tensors, "pos_embed")[1] - 1)
    config = {"name": "vit", "size": sizes[0], "patch_size": patch_size}
    config |= {"image_size": side * patch_size, "in_channels": in_channels}
    return config | ({"layer_scale": 1e-5} if "blocks.0.ls1.gamma" in tensors else {})


def unseen(config: dict[str, Any]) -> dict[str, Any]:
    """What no shape shows: the attention heads of a ViT."""
    if config["name"] != "vit":
        return {}
    return {"heads": attention_heads(config["size"], config.get("heads"))}


def _tokens_first(name: str, tensor: Tensor) -> Tensor:
    """Positions [T, 1, C], as in SWAG, become [1, T, C]."""
    return tensor.transpose(0, 1) if name == "pos_embed" and tensor.shape[1] == 1 else tensor


TIMM = Naming("timm's ViT", r"blocks\.0\.attn\.qkv\.weight", (), settings)

_ENCODER = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.(?:encoder_)?layer_(\d+)\.", r"blocks.\1."),
    (r"^encoder\.ln\.", "norm."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
)
TORCHVISION = Naming(
    "torchvision's ViT", r"encoder\.layers\.encoder_layer_0\.ln_1\.weight", _ENCODER, settings
)
SWAG = Naming(
    "ClassyVision's ViT",
    r"encoder\.layers\.layer_0\.ln_1\.weight",
    _ENCODER,
    settings,
    _tokens_first,
)
