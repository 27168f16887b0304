"""A loss and a trunk. Importing this module registers them.

Legend: V crops, B images, D columns of an embedding, N rows, C channels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vissl_lite import LOSSES, TRUNKS, ConfigError


def alignment(x_BD: Tensor, y_BD: Tensor) -> Tensor:
    """Mean squared distance between the two crops of an image."""
    return (x_BD - y_BD).square().sum(-1).mean()


def uniformity(z_BD: Tensor) -> Tensor:
    """log of the mean of exp(-2 |z_i - z_j|^2) over all pairs i < j."""
    return torch.pdist(z_BD).square().mul(-2).exp().mean().log()


@LOSSES.register("acme_alignment")
class AlignmentUniformity(nn.Module):
    """Crops of an image close together, images evenly spread on the sphere.

        loss = |x - y|^2 + weight * (uniformity(x) + uniformity(y)) / 2

    Takes the embeddings [2, B, D], which it normalises. Pairs are those of one process.
    Source: Wang & Isola 2020, arXiv 2005.10242, section 4.

    Args:
        weight: of uniformity; 1 in the paper.

    Raises:
        ConfigError: not two crops.
    """

    def __init__(self, weight: float = 1.0):
        super().__init__()
        self.weight = weight

    def forward(self, outputs: Any, batch: Any) -> dict[str, Tensor]:
        if len(outputs.embedding) != 2:
            raise ConfigError("loss: acme_alignment compares two crops; make 2 views")
        x_BD, y_BD = F.normalize(outputs.embedding.float(), dim=-1)
        aligned, spread = alignment(x_BD, y_BD), (uniformity(x_BD) + uniformity(y_BD)) / 2
        return {
            "loss": aligned + self.weight * spread,
            "alignment": aligned.detach(),
            "uniformity": spread.detach(),
        }


@TRUNKS.register("acme_plain")
class Plain(nn.Module):
    """A plain stack of strided 3x3 convolutions, for small images.

    Layers: conv1, conv2, ...; each halves height and width.

    Args:
        channels: of each convolution.
        in_channels: of the images.
    """

    def __init__(self, channels: list[int] = (32, 64, 128), in_channels: int = 3):
        super().__init__()
        pairs = zip([in_channels, *channels], channels)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
            for i, o in pairs
        )
        self.widths = {f"conv{i}": width for i, width in enumerate(channels, start=1)}

    def units(self) -> list[nn.Module]:
        return list(self.blocks)

    def forward(self, x_NCHW: Tensor, layers: Sequence[str] = ()) -> dict[str, Tensor]:
        outputs, x = {}, x_NCHW
        for name, block in zip(self.widths, self.blocks):
            outputs[name] = x = block(x)
        return {name: outputs[name] for name in layers or [name]}
