"""Arrays on disk that are read by position and leave nothing in the process that reads them.

A list of N strings is two one-dimensional .npy files: all bytes behind one another, and N + 1
offsets. Reads go through pread, not through a memory map: the kernel maps 64 KiB around every
fault, so that after 100,000 random reads a map holds most of a file and counts as the memory of the
process (benchmarks/source_index.py).
"""

import itertools
import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HEADER = 128  # bytes of the header that numpy writes for any one-dimensional array
FLUSH = 1 << 16  # rows that a writer collects before it writes them


class File:
    """A file read by position, opened in whichever process reads it first; pickles as its path."""

    def __init__(self, path: str | Path):
        self.path = os.fspath(path)
        self._descriptor: int | None = None

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, fewer at the end of the file."""
        return os.pread(self.descriptor, size, offset)

    @property
    def descriptor(self) -> int:
        """Of the open file."""
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._descriptor)
        return self._descriptor

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_descriptor": None}


class Column:
    """A one-dimensional .npy file: `column[i]`, `column.read(start, stop)`, or mapped whole."""

    def __init__(self, path: Path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        self.dtype, self._length, self._start = array.dtype, len(array), array.offset
        self.file = File(path)

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, stop: int) -> np.ndarray:
        size = self.dtype.itemsize
        data = self.file.read(self._start + int(start) * size, int(stop - start) * size)
        return np.frombuffer(data, self.dtype)

    def __getitem__(self, index: int) -> Any:
        return self.read(index, index + 1)[0]

    def array(self) -> np.ndarray:
        """All values, memory-mapped, read-only."""
        return np.load(self.file.path, mmap_mode="r", allow_pickle=False)


class Ragged:
    """Rows of different lengths: row i is `values[offsets[i]:offsets[i + 1]]`."""

    def __init__(self, folder: Path, name: str):
        self.values = Column(folder / f"{name}.values.npy")
        self.offsets = Column(folder / f"{name}.offsets.npy")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        start, stop = self.offsets.read(index, index + 2)
        return self.values.read(start, stop)


class Strings(Ragged):
    """Strings, or paths whose bytes are no UTF-8: decoded as the file system does it."""

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(super().__getitem__(index).tobytes())


class ColumnWriter:
    """Writes a .npy file piece by piece; the length goes into the header at the end."""

    def __init__(self, path: Path, dtype: str):
        self.path, self.dtype, self.length = path, np.dtype(dtype), 0
        self._pending = [bytes(HEADER)]

    def extend(self, values: Any) -> None:
        array = np.asarray(values, self.dtype)
        self._pending.append(array.tobytes())
        self.length += len(array)
        if len(self._pending) >= FLUSH or array.nbytes >= FLUSH:
            self._flush()

    def close(self) -> None:
        self._flush()
        description = np.lib.format.dtype_to_descr(self.dtype)
        header = {"descr": description, "fortran_order": False, "shape": (self.length,)}
        with open(self.path, "r+b") as file:
            np.lib.format.write_array_header_1_0(file, header)
            assert file.tell() == HEADER
            file.flush()
            os.fsync(file.fileno())

    def _flush(self) -> None:
        with open(self.path, "ab") as file:
            file.writelines(self._pending)
        self._pending = []


class RaggedWriter:
    """Writes `Ragged` row by row. `flat` turns a list of rows into one array."""

    def __init__(self, folder: Path, name: str, dtype: str, flat: Callable[[list], np.ndarray]):
        self._values = ColumnWriter(folder / f"{name}.values.npy", dtype)
        self._offsets = ColumnWriter(folder / f"{name}.offsets.npy", "int64")
        self._offsets.extend([0])
        self._rows, self._size, self._flat = [], 0, flat

    def add(self, row: Sequence) -> None:
        self._rows.append(row)
        self._size += len(row)
        if len(self._rows) >= FLUSH or self._size >= FLUSH * 256:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._values.close()
        self._offsets.close()

    def _flush(self) -> None:
        lengths = np.fromiter(map(len, self._rows), np.int64, len(self._rows))
        self._offsets.extend(self._values.length + np.cumsum(lengths))
        self._values.extend(self._flat(self._rows))
        self._rows, self._size = [], 0


def bytes_writer(folder: Path, name: str) -> RaggedWriter:
    """A writer of rows of bytes: encoded strings, encoded images."""
    return RaggedWriter(folder, name, "uint8", lambda rows: np.frombuffer(b"".join(rows), np.uint8))


def ids_writer(folder: Path, name: str) -> RaggedWriter:
    """A writer of rows of class ids."""

    def flat(rows: list) -> np.ndarray:
        return np.fromiter(itertools.chain.from_iterable(rows), np.int32)

    return RaggedWriter(folder, name, "int32", flat)


def write_strings(folder: Path, name: str, strings: Iterable[str]) -> None:
    writer = bytes_writer(folder, name)
    for string in strings:
        writer.add(os.fsencode(string))
    writer.close()
