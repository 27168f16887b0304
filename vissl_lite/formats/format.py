"""What a format and a naming are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vissl_lite.config import IMAGENET_MEAN, IMAGENET_STD
from vissl_lite.errors import ConfigError

Tensors = Mapping[str, Tensor]

# what torch.save and DataParallel put before a name
WRAPPED = r"(?:(?:state_dict|model|model_state_dict)\.)?(?:module\.)?"
HEADS = (
    r"(?:fc|heads?|classifier|linear|projector|projection_head|predictor|prediction_head"
    r"|prototypes)\."
)


@dataclass(frozen=True)
class Pixels:
    """What the network was trained to see; None where the file does not say.

    Attributes:
        mean, std: of pixels in [0, 1], per channel.
        size: side of the images, in pixels.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None


UNKNOWN = Pixels()
IMAGENET = Pixels(IMAGENET_MEAN, IMAGENET_STD, 224)


@dataclass(frozen=True)
class Naming:
    """How a library names the tensors of a network.

    Attributes:
        name: for reports.
        anchor: regular expression of a tensor that only this naming has.
        renames: (regular expression, replacement), applied in order, lead to our names.
        settings: from the tensors under our names to the config of a trunk.
        change: what must be done to values, by our name.
    """

    name: str
    anchor: str
    renames: tuple[tuple[str, str | Callable[[re.Match], str]], ...]
    settings: Callable[[Tensors], dict[str, Any]]
    change: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor

    def ours(self, name: str) -> str:
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name


@dataclass(frozen=True)
class Format:
    """Where the trunk is in a file. Nested dicts are flattened: "state_dict.module.conv1.weight".

    Attributes:
        name: of the method or library, for reports.
        trunk: regular expressions of what stands before the trunk's own names; the first that a
            known network follows is taken.
        mark: regular expression that the beginning of some tensor's name must match.
        ignored: regular expression of the beginning of a name -> why it is left out.
        heads: regular expression of the beginning of a head's name -> what it is in ours, for
            methods whose heads we have.
        pixels: what the published networks of this format were trained to see.
        unseen: from the tensors under our names to what their shapes do not show of the trunk's
            config.
    """

    name: str
    trunk: tuple[str, ...]
    mark: str = ""
    ignored: Mapping[str, str] = field(default_factory=dict)
    heads: Mapping[str, str] = field(default_factory=dict)
    pixels: Pixels = UNKNOWN
    unseen: Callable[[Tensors], dict[str, Any]] = lambda tensors: {}


def shape(tensors: Tensors, name: str) -> tuple[int, ...]:
    """Of a tensor from which settings are inferred."""
    if name not in tensors:
        raise ConfigError(
            f"weights: {name} is missing, whose shape tells the trunk's settings; take a whole"
            " file, or for a network that has no such tensor the trunk timm or torchvision, which"
            " init= fills"
        )
    return tuple(tensors[name].shape)
