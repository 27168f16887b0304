"""The trunk's weights as one file that other programs read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import nn

import vissl_lite
from vissl_lite import TRUNKS

if TYPE_CHECKING:
    from vissl_lite.engine.trainer import Trainer


def export_trunk(trunk: nn.Module, file: Path, metadata: dict[str, str]) -> None:
    """Writes a trunk's state dict as `.safetensors`: the whole file or none."""
    as_written: dict[str, Any] = {"memory_format": torch.contiguous_format, "copy": True}
    tensors = {name: t.to("cpu", **as_written) for name, t in trunk.state_dict().items()}
    tmp = file.with_suffix(".tmp")
    save_file(tensors, tmp, metadata)
    _sync(tmp)
    os.replace(tmp, file)
    _sync(file.parent)


def card(trainer: Trainer) -> dict[str, str]:
    """What the file of weights says about itself; `trunk` is JSON."""
    return {
        "recipe": trainer.config.recipe or "",
        "step": str(trainer.step),
        "trunk": json.dumps(TRUNKS.check(trainer.config.trunk, "trunk")),
        "vissl_lite": vissl_lite.__version__,
    }


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
