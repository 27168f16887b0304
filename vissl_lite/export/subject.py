"""What is exported. Shape suffixes: N images, C channels, H, W rows and columns, F features."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import vissl_lite
from vissl_lite.engine.weights import load, run_of
from vissl_lite.errors import ConfigError

DEFAULT_SIDE = 224


class Features(nn.Module):
    """The last layer of a trunk, a map averaged over its positions: [N, C, H, W] -> [N, F]."""

    def __init__(self, trunk: nn.Module):
        super().__init__()
        self.trunk = trunk

    def forward(self, x_NCHW: Tensor) -> Tensor:
        (y,) = self.trunk(x_NCHW).values()
        return pooled(y)


def pooled(y: Tensor) -> Tensor:
    """[N, F, H, W] or [N, F] -> [N, F]."""
    return y.mean((2, 3)) if y.ndim == 4 else y


@dataclass(frozen=True)
class Subject:
    """A trunk in eval mode, with what other programs must know of it.

    Attributes:
        trunk: as `vissl_lite.load` gives it.
        config: of the trunk, all keys.
        side: of the images, in pixels, that it is checked with and exported for.
        run: folder of the run that trained it; None where there is none.
    """

    trunk: Any
    config: dict[str, Any]
    side: int
    run: Path | None = None

    def card(self) -> dict[str, str]:
        """What a file says about itself; all but the version is JSON. Unknown is left out."""
        pixels = {key: getattr(self.trunk, key) for key in ("mean", "std", "size")}
        known = {key: json.dumps(value) for key, value in pixels.items() if value is not None}
        trunk = json.dumps(self.config)
        return {"trunk": trunk, "vissl_lite": vissl_lite.__version__, **known}

    def probe(self) -> Tensor:
        """Two images of normal noise, [2, C, side, side]; always the same."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(2, self.config["in_channels"], *[self.side] * 2, generator=generator)


def read_subject(path_or_name: str | Path, side: int | None = None) -> Subject:
    """What `vissl_lite.load` takes, with its config.

    Args:
        side: of the images; None for the side the trunk was made for, or 224 where nothing tells.

    Raises:
        ConfigError: as `load`, or a side that a ViT has no positions for.
    """
    trunk: Any = load(path_or_name)
    run = run_of(Path(trunk.report.origin)) if trunk.report.format == "vissl_lite" else None
    if trunk.config["name"] != "vit":
        return Subject(trunk, trunk.config, side or trunk.size or DEFAULT_SIDE, run)
    own = trunk.grid * trunk.patch_size
    if side not in (None, own):
        raise ConfigError(
            f"export: this ViT's positions are for images of {own} pixels, not {side}; leave out"
            " --size"
        )
    return Subject(trunk, trunk.config, own, run)
