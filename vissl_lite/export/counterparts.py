"""What transformers calls a trunk: the config of its network, and its names of our tensors.

The names are those of the files on the hub, which every version of transformers reads; its modules
have had others since version 5.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from vissl_lite.export.regnets import stages
from vissl_lite.export.subject import Subject
from vissl_lite.export.target import refuse

_CONV_NORM = (
    (r"(layer\.\d|shortcut)\.0\.weight$", r"\1.convolution.weight"),
    (r"(layer\.\d|shortcut)\.1\.", r"\1.normalization."),
)
_EMBEDDER = (
    (r"^(?:conv1|stem\.0)\.", "embedder.embedder.convolution."),
    (r"^(?:bn1|stem\.1)\.", "embedder.embedder.normalization."),
)


def _within_stage(match: re.Match) -> str:
    stage, block = int(match[1]) - 1, match[2]
    return f"encoder.stages.{stage}.layers.{block}."


def _within_block(match: re.Match) -> str:
    part = "convolution" if match[1] == "conv" else "normalization"
    return f".layer.{int(match[2]) - 1}.{part}."


_RESNET = (
    *_EMBEDDER,
    (r"^layer(\d)\.(\d+)\.", _within_stage),
    (r"\.(conv|bn)(\d)\.", _within_block),
    (r"\.downsample", ".shortcut"),
    *_CONV_NORM,
)
_VIT = (
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^blocks\.", "encoder.layer."),
    (r"^norm\.", "layernorm."),
    (r"\.attn\.(query|key|value)\.", r".attention.attention.\1."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
)
_VIT_BLOCK = (
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
_DINOV2_BLOCK = ((r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),)


def counterpart(subject: Subject) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What is in config.json, and the tensors by their names on the hub.

    Raises:
        ConfigError: transformers has no network that computes the same.
    """
    name = subject.config["name"]
    if name not in ("resnet", "regnet", "anynet", "vit"):
        raise refuse("transformers", f"it is the trunk {name}")
    make = {"resnet": _resnet, "vit": _vit}.get(name, _regnet)
    config, renames = make(subject)
    channels = subject.config["in_channels"]
    config |= {"num_channels": channels, "torch_dtype": "float32"}
    return config, _renamed(subject.trunk.state_dict(), renames)


def _resnet(subject: Subject) -> tuple[dict[str, Any], tuple]:
    trunk, config = subject.trunk, subject.config
    if config["stem"] == "cifar":
        raise refuse("transformers", "its stem is CIFAR's, 3x3 without pooling")
    if (config["groups"], config["width_per_group"]) != (1, 64):
        raise refuse("transformers", "its bottlenecks have groups or another width")
    embedding, *widths = trunk.widths.values()
    depths = [len(trunk.get_submodule(f"layer{i}")) for i in range(1, 5)]
    return {
        "architectures": ["ResNetModel"],
        "model_type": "resnet",
        "embedding_size": embedding,
        "hidden_sizes": widths,
        "depths": depths,
        "layer_type": "basic" if config["depth"] < 50 else "bottleneck",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,  # the stride is at the 3x3
    }, _RESNET


def _regnet(subject: Subject) -> tuple[dict[str, Any], tuple]:
    sizes = stages(subject.trunk)
    widths, group_width = sizes["widths"], max(sizes["group_widths"])
    if sizes["group_widths"] != [min(group_width, width) for width in widths]:
        raise refuse("transformers", "its stages have groups of several widths")
    if sizes["se_ratio"] not in (0, 0.25):
        raise refuse("transformers", f"its squeeze-excitation has the ratio {sizes['se_ratio']:g}")
    return {
        "architectures": ["RegNetModel"],
        "model_type": "regnet",
        "embedding_size": sizes["stem_width"],
        "hidden_sizes": widths,
        "depths": sizes["depths"],
        "groups_width": group_width,
        "layer_type": "y" if sizes["se_ratio"] else "x",
        "hidden_act": "relu",
        "downsample_in_first_stage": True,
    }, _regnet_renames(squeezes=sizes["se_ratio"] > 0)


def _regnet_renames(squeezes: bool) -> tuple:
    """f is a (layer 0), b (1), in Y squeeze-excitation (2: attention.0, attention.2), c."""
    places = {"a": 0, "b": 1, "c": 3 if squeezes else 2}
    return (
        *_EMBEDDER,
        (r"^trunk_output\.block(\d+)\.block\d+-(\d+)\.", _within_stage),
        (r"\.f\.se\.fc1\.", ".layer.2.attention.0."),
        (r"\.f\.se\.fc2\.", ".layer.2.attention.2."),
        *((rf"\.f\.{part}\.", f".layer.{place}.") for part, place in places.items()),
        (r"\.proj\.", ".shortcut."),
        *_CONV_NORM,
    )


def _vit(subject: Subject) -> tuple[dict[str, Any], tuple]:
    """ViTModel; with LayerScale, Dinov2Model."""
    trunk, scaled = subject.trunk, subject.config["layer_scale"] is not None
    width = trunk.widths["cls"]
    config = {
        "hidden_size": width,
        "num_hidden_layers": len(trunk.blocks),
        "num_attention_heads": trunk.heads,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "image_size": trunk.grid * trunk.patch_size,
        "patch_size": trunk.patch_size,
    }
    if scaled:
        own = {"architectures": ["Dinov2Model"], "model_type": "dinov2", "mlp_ratio": 4}
        return {**own, **config, "use_mask_token": False}, _VIT + _DINOV2_BLOCK
    own = {"architectures": ["ViTModel"], "model_type": "vit", "intermediate_size": 4 * width}
    return {**own, **config}, _VIT + _VIT_BLOCK


def _renamed(state: Mapping[str, Tensor], renames: tuple) -> dict[str, Tensor]:
    found = {}
    for name, tensor in _queries_keys_values(state):
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        found[name] = tensor.contiguous()
    return found


def _queries_keys_values(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """One tensor for each, which ours has in one."""
    for name, tensor in state.items():
        if ".qkv." not in name:
            yield name, tensor
            continue
        for part, piece in zip(("query", "key", "value"), tensor.chunk(3)):
            yield name.replace("qkv", part), piece
