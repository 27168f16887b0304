"""Bytes that are no UTF-8 among many texts."""

import contextlib
import itertools

import numpy as np
import pyarrow as pa


def bytes_of(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Offsets [N + 1] from 0, and the bytes of all texts, large_binary [N], behind one another."""
    offsets = np.frombuffer(texts.buffers()[1], np.int64)
    offsets = offsets[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)
    return offsets - offsets[0], data[offsets[0] : offsets[-1]]


def broken_rows(texts: pa.Array) -> np.ndarray:
    """Which of the texts, large_binary [N], hold bytes that are no UTF-8."""
    with contextlib.suppress(pa.ArrowInvalid):
        texts.cast(pa.large_string())
        return np.empty(0, np.int64)
    offsets, data = bytes_of(texts)
    rows = itertools.pairwise(offsets)
    return np.array([i for i, (a, b) in enumerate(rows) if not _is_utf8(data[a:b])], np.int64)


def repaired(texts: pa.Array) -> tuple[pa.Array, int]:
    """The texts with U+FFFD in place of what is no UTF-8, and how many of them were mended."""
    broken = broken_rows(texts)
    if not len(broken):
        return texts, 0
    values = texts.to_pylist()
    for row in broken:
        values[row] = values[row].decode(errors="replace").encode()
    return pa.array(values, pa.large_binary()), len(broken)


def _is_utf8(data: np.ndarray) -> bool:
    try:
        str(data.data, "utf-8")
    except UnicodeDecodeError:
        return False
    return True
