"""A folder of features while processes write it, perhaps to be killed.

features.json     what the features are of, and whether all of them are there
LAYER.npy         [N, D], allocated at the start; a block of rows is written at its place
done-*.jsonl      what is there (`journal.py`), until the end
names.*.npy, labels.npy, broken.txt          from the journals, at the end (`finish.py`)
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from vissl_lite.errors import ConfigError
from vissl_lite.io import replace_text, sync
from vissl_lite.resumable import check_same, lock, write_all
from vissl_lite.sources._columns import File

META = "features.json"


class Folder:
    """Where the rows of each block are.

    Args:
        described: all that decides the features: "images", "batch_size", "dtype", "layers" (name
            -> width), and whatever else two extractions may differ in.
    """

    def __init__(self, path: Path, described: dict[str, Any]):
        self.path, self.described = path, described
        self.images, self.batch_size = described["images"], described["batch_size"]
        self.layers: dict[str, int] = described["layers"]
        self.dtype = np.dtype(described["dtype"])
        self._descriptor: int | None = None  # holds the lock

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __len__(self) -> int:
        """Number of blocks."""
        return -(-self.images // self.batch_size)

    def begin(self) -> None:
        """Allocates what is not there yet, and locks the folder until the `with` block ends.

        Raises:
            ConfigError: it holds something else, or another process writes it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock()
        if (self.path / META).is_file():
            check_described(self.described, self.meta(), self.path)
        elif {file.name for file in self.path.iterdir()} - {"features.tmp"}:
            raise ConfigError(
                f"extract --out: {self.path} holds something else than features; give a new folder"
            )
        else:
            self.write_meta(complete=False)
        for layer, width in self.layers.items():
            if not self.array_file(layer).exists():
                self._allocate(layer, width)

    def array_file(self, layer: str) -> Path:
        return self.path / f"{layer}.npy"

    def meta(self) -> dict[str, Any]:
        return json.loads((self.path / META).read_text())

    def is_complete(self) -> bool:
        return self.meta()["complete"]

    def write_meta(self, **more: Any) -> None:
        tmp = self.path / "features.tmp"
        replace_text(tmp, json.dumps({**self.described, **more}, indent=2) + "\n")
        os.replace(tmp, self.path / META)
        sync(self.path)

    def read(self, layer: str, block: int) -> bytes:
        """The rows of a block, as they are in the file."""
        return File(self.array_file(layer)).read(*self._place(layer, block))

    def write(self, layer: str, block: int, rows: bytes) -> None:
        """Not through a memory map: a full disk would be a fault there, and is an error here."""
        offset, size = self._place(layer, block)
        assert len(rows) == size
        with self.array_file(layer).open("r+b", buffering=0) as file:
            file.seek(offset)
            write_all(file, rows)

    def _place(self, layer: str, block: int) -> tuple[int, int]:
        """Offset and length in bytes."""
        row = self.layers[layer] * self.dtype.itemsize
        header = self.array_file(layer).stat().st_size - self.images * row
        first = block * self.batch_size
        return header + first * row, (min(first + self.batch_size, self.images) - first) * row

    def _allocate(self, layer: str, width: int) -> None:
        tmp, shape = self.path / f"{layer}.tmp", (self.images, width)
        np.lib.format.open_memmap(tmp, "w+", self.dtype, shape).flush()
        os.replace(tmp, self.array_file(layer))

    def _lock(self) -> None:
        self._descriptor = os.open(self.path, os.O_RDONLY)
        lock(
            self._descriptor,
            f"extract --out: another process writes {self.path}; wait for it, or give another"
            " folder",
        )


def check_described(described: dict[str, Any], there: dict[str, Any], path: Path) -> None:
    """
    Raises:
        ConfigError: what is there has been extracted from something else, or in another way.
    """
    found = {key: there.get(key) for key in described}
    other = f"extract --out: {path} holds other features"
    check_same(described, found, other, "give another --out")
