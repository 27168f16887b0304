"""Weights as one `.safetensors` file, which other programs read."""

from __future__ import annotations

import json
import math
import os
import struct
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from vissl_lite.engine.checkpoint import together
from vissl_lite.engine.tensor_files import reason
from vissl_lite.errors import SaveFailed
from vissl_lite.io import sync
from vissl_lite.parallel.collectives import rank
from vissl_lite.parallel.shards import whole

_NAMES = {  # of the safetensors format
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
    """Writes tensors, sharded or not, as `.safetensors`: the whole file or none.

    One tensor at a time is gathered, so that a host needs room for the largest only. All processes
    call it together; rank 0 writes.

    Raises:
        SaveFailed: on all of them, if it could not be written.
    """
    blocks = _bytes(tensors)

    def by_rank_0() -> None:
        try:
            if rank() == 0:
                _write(file, _header(tensors, metadata), blocks)
        finally:
            deque(blocks, maxlen=0)  # what rank 0 could not write is gathered with the others

    together(by_rank_0)


def _write(file: Path, header: bytes, blocks: Iterator[memoryview]) -> None:
    tmp = file.with_suffix(".tmp")
    try:
        with tmp.open("wb") as out:
            out.write(header)
            for block in blocks:
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
        os.replace(tmp, file)
        sync(file.parent)
    except OSError as error:
        tmp.unlink(missing_ok=True)
        raise SaveFailed(f"weights: {file} could not be written; {reason(error)}") from None


def _header(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The length of the JSON text, then the text, padded to a multiple of 8 bytes."""
    entries: dict[str, object] = {"__metadata__": metadata}
    start = 0
    for name, t in tensors.items():
        end = start + math.prod(t.shape) * t.dtype.itemsize
        entries[name] = {
            "dtype": _NAMES[t.dtype],
            "shape": list(t.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _bytes(tensors: dict[str, Tensor]) -> Iterator[memoryview]:
    for t in tensors.values():
        full = whole(t.detach()).cpu().contiguous()
        yield full.reshape(-1).view(torch.uint8).numpy().data
