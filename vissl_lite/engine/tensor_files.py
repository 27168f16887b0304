"""Tensors of all processes as `.safetensors` shards, by PyTorch's Distributed Checkpoint.

    shard-00001-model-00001-of-00001.safetensors     what rank 0 writes, and so on

Each file says in its header which piece of which tensor it holds, so any number of processes, under
any strategy and any supported torch, can read them back. Nothing is pickled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

from vissl_lite.errors import ConfigError, SaveFailed
from vissl_lite.parallel.collectives import is_distributed


def write_tensors(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Writes every tensor once; all processes call it together.

    Raises:
        SaveFailed: on all of them, if one could not write.
    """
    with _quiet(), _as_save_failed(folder):
        dcp.save(_dense(tensors), storage_writer=_writer(folder), no_dist=not is_distributed())


def begin_write(
    folder: Path, tensors: dict[str, Tensor], group: dist.ProcessGroup | None
) -> Callable[[], object]:
    """As `write_tensors`, but returns when the tensors are copied to host memory.

    Args:
        group: of gloo, used by nobody else: its threads talk at their own time. None: one process.

    Returns:
        What a thread must call, and then the files are written.
    """
    if group is None:
        copies = {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}
        return partial(write_tensors, folder, copies)
    with _as_save_failed(folder):
        writer = _writer(folder)
        saving = dcp.async_save(_dense(tensors), storage_writer=writer, process_group=group)
    return cast(Future, saving).result


def read_tensors(folder: Path, into: dict[str, Tensor], alone: bool = False) -> None:
    """Fills tensors, sharded or not, in place; all processes call it together.

    Args:
        alone: this process reads for itself, whatever the others do; whole tensors only.

    Raises:
        ConfigError: a file is missing or damaged.
    """
    reader = dcp.HuggingFaceStorageReader(str(folder))
    with _quiet(), _as_damaged(folder):
        dcp.load(cast(dict, into), storage_reader=reader, no_dist=alone or not is_distributed())


def saved_tensors(folder: Path) -> dict[str, Tensor]:
    """Name -> an empty tensor of the saved shape and type, on the meta device."""
    with _as_damaged(folder):
        metadata = dcp.HuggingFaceStorageReader(str(folder)).read_metadata()
    found = cast(Mapping[str, Any], metadata.state_dict_metadata)
    return {
        name: torch.empty(t.size, dtype=t.properties.dtype, device="meta")
        for name, t in found.items()
    }


def _dense(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without strides, of which safetensors knows nothing."""
    return {k: t if isinstance(t, DTensor) else t.contiguous() for k, t in tensors.items()}


def _writer(folder: Path) -> dcp.HuggingFaceStorageWriter:
    writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    # else threads that save in the background, whose device is 0, open it on every rank
    writer.per_thread_copy_ahead = 0
    return writer


@contextmanager
def _as_save_failed(folder: Path) -> Iterator[None]:
    try:
        yield
    except (CheckpointException, OSError) as error:  # the first is no Exception
        raise SaveFailed(f"checkpoint: {folder} could not be written; {reason(error)}") from None


@contextmanager
def _as_damaged(folder: Path) -> Iterator[None]:
    try:
        yield
    except (CheckpointException, OSError, SafetensorError, ValueError) as error:
        raise ConfigError(
            f"checkpoint: {folder} cannot be read ({reason(error)}); remove this folder to go on"
            " from the checkpoint before it"
        ) from None


def reason(error: BaseException) -> str:
    """The first cause, in a line; of several ranks the first that failed."""
    if isinstance(error, CheckpointException):
        rank, (cause, _) = next(iter(error.failures.items()))
        return f"rank {rank}: {reason(cause)}"
    return f"{type(error).__name__}: {error}".split("\n")[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning that there is no process group: we say `no_dist` ourselves."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield
