"""Files of tensors: `.safetensors`, and what torch.save has written. Nothing is unpickled.

Which of the two a file is shows in its first bytes, not in its name.
"""

from __future__ import annotations

import argparse
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vissl_lite.errors import ConfigError

COMPILED = "_orig_mod."  # what torch.compile puts into names, anywhere


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors, nested dicts flattened ("state_dict.module.conv1.weight"), and the metadata.

    Names are those from before torch.compile.

    Raises:
        ConfigError: damaged, of another kind, or only readable by running code from the file.
    """
    tensors, card = (
        _read_safetensors(path) if _is_safetensors(path) else (dict(flatten(_load(path))), {})
    )
    return {name.replace(COMPILED, ""): tensor for name, tensor in tensors.items()}, card


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of dicts and lists in each other; everything else is no weight."""
    if isinstance(value, Tensor):
        yield prefix, value
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in items:
            yield from flatten(inner, f"{prefix}.{key}" if prefix else str(key))


def _is_safetensors(path: Path) -> bool:
    """The length of the header, then a header that is JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    length = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else 0
    return start[8:] == b"{" and 0 < length <= path.stat().st_size - 8


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise ConfigError(f"weights: {path} is damaged ({error}); fetch it again") from None


def _load(path: Path) -> Any:
    """argparse.Namespace, which DINO's checkpoints hold, is a plain record and runs nothing."""
    allowed = torch.serialization.safe_globals([argparse.Namespace])
    # a zip is mapped, so that only what is used is read; not by a name that torch.load believes
    mapped = zipfile.is_zipfile(path) and path.suffix != ".safetensors"
    try:
        with allowed, path.open("rb") as file:
            source = str(path) if mapped else file
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # what is no checkpoint fails in any way
        if re.search("unsupported (?!operand)|TorchScript", str(error), re.IGNORECASE):
            raise ConfigError(_refusal(path, error)) from None
        raise ConfigError(
            f"weights: {path} is neither .safetensors nor written by torch.save"
            f" ({type(error).__name__}), or damaged; fetch it again"
        ) from None


def _refusal(path: Path, error: Exception) -> str:
    reason = "is a TorchScript archive"
    if "TorchScript" not in str(error):
        what = str(error).partition("WeightsUnpickler error: ")[2].split(". ")[0].split("\n")[0]
        reason = f"holds objects that only running its code could make ({what})"
    return (
        f"weights: {path} {reason}; where you trust it, load it with the program that wrote it and"
        f" save the tensors alone: torch.save(model.state_dict(), 'tensors.pth')"
    )
