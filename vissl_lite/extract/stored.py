"""Reading features that `extract` has written, whatever their form. Legend: N rows, D features."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vissl_lite.errors import ConfigError
from vissl_lite.extract.finish import NAMES
from vissl_lite.extract.folder import META
from vissl_lite.extract.parquet import ENDING, ParquetFeatures
from vissl_lite.sources._columns import Strings

ROWS = 8192  # of a piece: 64 MiB of 2048 features in float32


class FolderFeatures:
    """Reads a complete folder: `len`, `row`, `name`, `blocks`; memory-mapped."""

    def __init__(self, path: Path):
        self.path, self.meta = path, json.loads((path / META).read_text())
        self._names = Strings(path, NAMES)

    def __len__(self) -> int:
        return self.meta["images"]

    def array(self, layer: str) -> np.ndarray:
        """[N, D], memory-mapped, read-only."""
        return np.load(self.path / f"{layer}.npy", mmap_mode="r", allow_pickle=False)

    def row(self, layer: str, index: int) -> np.ndarray:
        """[D], as it is stored."""
        return self.array(layer)[index]

    def name(self, index: int) -> str:
        return self._names[index]

    def blocks(self, layer: str) -> Iterator[tuple[int, np.ndarray]]:
        """(index of the first, rows [N, D]), in order; each is mapped anew, so that what has been
        read does not stay in the memory of the process."""
        for start in range(0, len(self), ROWS):
            yield start, self.array(layer)[start : start + ROWS]


def open_features(path: Path) -> FolderFeatures | ParquetFeatures:
    """
    Raises:
        ConfigError: no features there, or not all of them yet.
    """
    if path.suffix == ENDING and path.is_file():
        return ParquetFeatures(path)
    if not (path / META).is_file():
        raise ConfigError(f"{path}: holds no features; make some with vissl-lite extract")
    if not json.loads((path / META).read_text())["complete"]:
        raise ConfigError(
            f"{path}: its features are not complete; start the same vissl-lite extract again, it"
            " goes on"
        )
    return FolderFeatures(path)
