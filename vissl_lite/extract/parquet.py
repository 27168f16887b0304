"""Features as one Parquet file: columns index, name, label, and a list of numbers per layer.

What they are of is JSON in the schema's metadata, under "vissl_lite". Legend: N rows of a piece,
D features.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vissl_lite.errors import ConfigError
from vissl_lite.extract.finish import LABELS, NAMES
from vissl_lite.extract.folder import Folder, check_described
from vissl_lite.io import sync
from vissl_lite.sources._columns import Column, Strings

ENDING, KEY = ".parquet", b"vissl_lite"
ROWS = 8192  # of a row group: 64 MiB of 2048 features
NAMED = 128  # row groups whose names are kept: those of a million images


def convert(folder: Folder, out: Path) -> None:
    """Writes a complete folder as Parquet: the whole file or none."""
    schema = _schema(folder)
    tmp = out.with_name(f"{out.name}.tmp")
    with pq.ParquetWriter(tmp, schema) as writer:
        for start in range(0, folder.images, ROWS):
            piece = _piece(folder, start, min(start + ROWS, folder.images))
            writer.write_table(pa.table(piece, schema=schema), row_group_size=ROWS)
    sync(tmp)
    tmp.replace(out)
    sync(out.parent)


def _schema(folder: Folder) -> pa.Schema:
    number = pa.from_numpy_dtype(folder.dtype)
    columns = {"index": pa.int64(), "name": pa.string(), "label": pa.int64()}
    columns |= {layer: pa.list_(number, width) for layer, width in folder.layers.items()}
    return pa.schema(columns, metadata={KEY: json.dumps(folder.meta()).encode()})


def _piece(folder: Folder, start: int, stop: int) -> dict[str, Any]:
    names = Strings(folder.path, NAMES)
    labelled = (folder.path / LABELS).is_file()
    labels = Column(folder.path / LABELS).read(start, stop) if labelled else None
    piece = {
        "index": pa.array(range(start, stop)),
        "name": pa.array([names[i] for i in range(start, stop)]),
        "label": pa.nulls(stop - start, pa.int64())
        if labels is None
        else pa.array(labels, mask=labels < 0),
    }
    for layer, width in folder.layers.items():
        x_ND = np.load(folder.array_file(layer), mmap_mode="r", allow_pickle=False)[start:stop]
        piece[layer] = pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(x_ND)), width)
    return piece


def read_meta(path: Path) -> dict[str, Any]:
    """
    Raises:
        ConfigError: a file without features of ours.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{path}: cannot be read as Parquet ({error})") from None
    if KEY not in metadata:
        raise ConfigError(f"{path}: holds no features; make some with vissl-lite extract")
    return json.loads(metadata[KEY])


def same_meta(path: Path, described: dict[str, Any]) -> dict[str, Any]:
    """The meta of a file that is there already.

    Raises:
        ConfigError: it holds something else.
    """
    meta = read_meta(path)
    check_described(described, meta, path)
    return meta


class ParquetFeatures:
    """Reads such a file: `len`, `row`, `name`, `blocks`; one row group is in memory at a time, and
    the names of some."""

    def __init__(self, path: Path):
        self.meta, self._file = read_meta(path), pq.ParquetFile(path)
        self._names = functools.lru_cache(NAMED)(self._read_names)

    def __len__(self) -> int:
        return self.meta["images"]

    def row(self, layer: str, index: int) -> np.ndarray:
        """[D], as it is stored."""
        return self._group(layer, index // ROWS)[index % ROWS]

    def name(self, index: int) -> str:
        return self._names(index // ROWS)[index % ROWS].as_py()

    def blocks(self, layer: str) -> Iterator[tuple[int, np.ndarray]]:
        """(index of the first, rows [N, D]), in order."""
        for g in range(self._file.num_row_groups):
            yield g * ROWS, self._group(layer, g)

    def _read_names(self, g: int) -> Any:
        return self._file.read_row_group(g, columns=["name"])["name"]

    def _group(self, layer: str, g: int) -> np.ndarray:
        column = self._file.read_row_group(g, columns=[layer])[layer].combine_chunks()
        numbers = column.values.to_numpy(zero_copy_only=False)
        return numbers.reshape(-1, self.meta["layers"][layer])
