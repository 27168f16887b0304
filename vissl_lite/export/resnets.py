"""What torchvision and timm call a ResNet."""

from __future__ import annotations

from typing import Any

from vissl_lite.export.target import refuse

NAMED = {  # depth, groups, width per group
    (50, 32, 4): "resnext50_32x4d",
    (101, 32, 8): "resnext101_32x8d",
    (101, 64, 4): "resnext101_64x4d",
    (50, 1, 128): "wide_resnet50_2",
    (101, 1, 128): "wide_resnet101_2",
}


def resnet_name(
    config: dict[str, Any], library: str, groups: str, width: str
) -> tuple[str, dict[str, int]]:
    """The name, and what must be given with it.

    Args:
        config: of the trunk resnet.
        library: for messages.
        groups, width: the library's words for the groups, and for the channels of one in res2.

    Raises:
        ConfigError: the library's ResNets have another stem, or other widths.
    """
    if config["stem"] == "cifar":
        raise refuse(library, "its stem is CIFAR's, 3x3 without pooling")
    if config["width_multiplier"] != 1:
        raise refuse(library, f"every layer is {config['width_multiplier']:g} times as wide")
    depth, *widths = (config[key] for key in ("depth", "groups", "width_per_group"))
    if named := NAMED.get((depth, *widths)):
        return named, {}
    return f"resnet{depth}", {} if widths == [1, 64] else dict(zip((groups, width), widths))
