"""ResNet, Wide ResNet, ResNeXt: names and settings. Our names are torchvision's."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from vissl_lite.errors import ConfigError
from vissl_lite.formats.format import Naming, Tensors, shape
from vissl_lite.trunks.resnet import DEPTHS, Bottleneck


def settings(tensors: Tensors) -> dict[str, Any]:
    """Depth from the blocks, widths and groups from the convolutions of the first block.

        conv1: [C, in, k, k], C = 64 width_multiplier
        layer1.0.conv2 of a bottleneck: [g w, w, 3, 3], w = C width_per_group // 64

    Raises:
        ConfigError: blocks as no depth of ours has them.
    """
    channels, in_channels, kernel, _ = shape(tensors, "conv1.weight")
    inner, width = shape(tensors, "layer1.0.conv2.weight")[:2]
    bottleneck = "layer1.0.conv3.weight" in tensors
    config = {"name": "resnet", "depth": _depth(tensors, bottleneck), "in_channels": in_channels}
    config |= {"width_multiplier": channels / 64, "stem": "cifar" if kernel == 3 else "imagenet"}
    if bottleneck:
        config |= {"groups": inner // width, "width_per_group": -(-width * 64 // channels)}
    return config


def _depth(tensors: Tensors, bottleneck: bool) -> int:
    blocks = {m[0]: int(m[1]) for name in tensors if (m := re.match(r"layer(\d)\.\d+\.", name))}
    counts = Counter(blocks.values())
    found = tuple(counts[stage] for stage in sorted(counts))
    for depth, (block, depths) in DEPTHS.items():
        if depths == found and (block is Bottleneck) == bottleneck:
            return depth
    kind = "bottlenecks" if bottleneck else "basic blocks"
    raise ConfigError(
        f"weights: a ResNet with {found} {kind} is none of the trunk's depths"
        f" ({', '.join(map(str, DEPTHS))}); use the timm or torchvision trunk"
    )


TORCHVISION = Naming("torchvision's ResNet", r"layer1\.0\.conv1\.weight", (), settings)

# nn.Sequential(*resnet.children()): conv1, bn1, relu, maxpool, layer1, ..., layer4
SEQUENTIAL = Naming(
    "a ResNet in nn.Sequential",
    r"4\.0\.conv1\.weight",
    (
        (r"^0\.", "conv1."),
        (r"^1\.", "bn1."),
        *((rf"^{index}\.", f"layer{index - 3}.") for index in (4, 5, 6, 7)),
    ),
    settings,
)
