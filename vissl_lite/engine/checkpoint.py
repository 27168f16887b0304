"""Checkpoints: folders that are either whole or not there.

    checkpoints/step-00000120/
        shard-*.safetensors   model and optimizer, each process its part; see tensor_files.py
        state.pt              the small rest that is equal on all ranks (numbers and strings)
        rank-00001.pt         what belongs to one process, such as its queue
        meta.json             step, world size, versions, the size of every file; written last

A checkpoint is written as `step-N.tmp`, synced to disk and renamed; it is never written twice. All
processes write to one file system. Nothing in a checkpoint can run code: `.pt` files are read with
`weights_only=True`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

import vissl_lite
from vissl_lite.engine.tensor_files import begin_write, reason, write_tensors
from vissl_lite.errors import ConfigError, SaveFailed
from vissl_lite.io import replace_text, sync
from vissl_lite.parallel.collectives import first_error, is_distributed, rank, world_size
from vissl_lite.parallel.process import with_timeout_of_all


class Checkpointer:
    """Writes, finds and prunes the checkpoints of one run.

    Args:
        folder: `RUN/checkpoints`.
        background: training goes on while a thread writes a copy of the tensors.
    """

    def __init__(self, folder: Path, background: bool = False):
        self.folder, self.background = folder, background
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future | None = None
        self._group: dist.ProcessGroup | None = None

    def save(
        self,
        step: int,
        tensors: dict[str, Tensor],
        shared: dict[str, Any],
        own: dict[str, Any],
        then: Callable[[Path], None] = lambda path: None,
    ) -> Path:
        """Writes the checkpoint of `step`; all processes call it together.

        Args:
            tensors: model and optimizer; see state.py.
            shared: state that is equal on all ranks; rank 0 writes it.
            own: state of this process.
            then: called on rank 0 with the folder once it is complete.

        Raises:
            SaveFailed: on all ranks, for this checkpoint or for the one still being written; what
                was written of it stays as a `.tmp` folder until the next save.
        """
        self.wait()
        final = self.folder / f"step-{step:08d}"
        if final.is_dir() and not damage(final):
            return final
        tmp = final.with_suffix(".tmp")
        together(lambda: self._start(tmp), only=0)
        together(lambda: write(tmp / f"rank-{rank():05d}.pt", own))
        together(lambda: write(tmp / "state.pt", shared), only=0)
        if self.background:
            write_out = begin_write(tmp, tensors, self._own_group())
            self._pending = self._thread.submit(self._finish, write_out, tmp, step, then)
        else:
            write_tensors(tmp, tensors)
            together(lambda: self._complete(tmp, step, then), only=0)
        return final

    def wait(self) -> None:
        """Returns when nothing is being written any more.

        Raises:
            SaveFailed: what was being written could not be.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            error = pending.exception()
            together(lambda: _reraise(error))

    def _start(self, tmp: Path) -> None:
        for left in self.folder.glob("step-*.tmp"):  # by a save that was killed or failed
            shutil.rmtree(left)
        shutil.rmtree(tmp.with_suffix(""), ignore_errors=True)  # damaged, or it would stay
        tmp.mkdir(parents=True)

    def _finish(
        self, write_out: Callable, tmp: Path, step: int, then: Callable[[Path], None]
    ) -> None:
        write_out()  # returns on rank 0 when all ranks have written
        if rank() == 0:
            self._complete(tmp, step, then)

    def _complete(self, tmp: Path, step: int, then: Callable[[Path], None]) -> None:
        files = {file.name: file.stat().st_size for file in sorted(tmp.iterdir())}
        replace_text(tmp / "meta.json", json.dumps(_meta(step) | {"files": files}, indent=2))
        os.rename(tmp, tmp.with_suffix(""))
        sync(self.folder)
        then(tmp.with_suffix(""))

    def _own_group(self) -> dist.ProcessGroup | None:
        if self._group is None and is_distributed():
            self._group = with_timeout_of_all(dist.new_group(backend="gloo"))
        return self._group

    def latest(self) -> Path | None:
        """The newest complete checkpoint."""
        return max(self.complete(), default=None)

    def complete(self) -> list[Path]:
        """All complete checkpoints, oldest first."""
        return [path for path in self._all() if not damage(path)]

    def damaged(self) -> list[str]:
        """What is wrong with checkpoints newer than the newest complete one, in sentences."""
        latest = self.latest()
        newer = [path for path in self._all() if latest is None or path > latest]
        return [f"checkpoint {path.name} is passed over: {damage(path)}" for path in newer]

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("step-????????"))

    def prune(
        self,
        keep_last: int,
        best: Path | None,
        stays: Callable[[int], bool] = lambda step: False,
    ) -> None:
        """Removes all but the last few, the best, and those whose step stays; rank 0 only."""
        complete = self.complete()
        kept = {*complete[-keep_last:], best}
        kept |= {path for path in complete if stays(int(path.name[-8:]))}
        for path in self._all():
            if path not in kept:
                (path / "meta.json").unlink(missing_ok=True)  # half removed is no checkpoint
                shutil.rmtree(path)

    def mark_best(self, checkpoint: Path) -> None:
        """Points the link `best` at a checkpoint, at once; rank 0 only."""
        tmp = self.folder / "best.tmp"
        tmp.unlink(missing_ok=True)
        tmp.symlink_to(checkpoint.name)
        os.replace(tmp, self.folder / "best")

    def best(self) -> Path | None:
        link = self.folder / "best"
        return self.folder / os.readlink(link) if link.is_symlink() else None


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; None if all files are there and as long as written."""
    if not (checkpoint / "meta.json").is_file():
        return "meta.json is missing, it was not written to its end"
    try:
        sizes = dict(json.loads((checkpoint / "meta.json").read_text())["files"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"meta.json cannot be read ({reason(error)})"
    for name, size in sizes.items():
        file = checkpoint / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size:,} of {size:,} bytes"
    return None


def load(checkpoint: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """(shared state, own state) of a checkpoint.

    The own state is None when the number of processes has changed: it belongs to a rank that is
    not there any more.

    Raises:
        ConfigError: a file is missing or damaged.
    """
    meta = json.loads((checkpoint / "meta.json").read_text())
    shared = read(checkpoint / "state.pt")
    same_world = meta["world_size"] == world_size()
    return shared, read(checkpoint / f"rank-{rank():05d}.pt") if same_world else None


def read(file: Path) -> dict[str, Any]:
    """Tensors and plain values from a file, on the CPU, never unpickling anything else."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
        raise ConfigError(
            f"checkpoint: {file} cannot be read ({reason(error)}); remove this checkpoint's folder"
            " to go on from the one before it"
        ) from error


def write(file: Path, state: dict[str, Any]) -> None:
    with file.open("wb") as out:
        torch.save(state, out)
        out.flush()
        os.fsync(out.fileno())


def together(action: Callable[[], object], only: int | None = None) -> None:
    """Runs `action` on all ranks, or on one, and returns when all are done.

    Raises:
        SaveFailed: on all ranks, of the lowest on which it failed.
    """
    failed: SaveFailed | None = None
    try:
        if only in (None, rank()):
            action()
    except OSError as error:
        failed = _failed(error)
    if first := first_error(failed):
        raise first


def _reraise(error: BaseException | None) -> None:
    if error is not None:
        raise _failed(error)


def _failed(error: BaseException) -> SaveFailed:
    """Says on which rank, where there are several."""
    if isinstance(error, SaveFailed):
        return error
    told = world_size() == 1 or isinstance(error, CheckpointException)
    where = "" if told else f"rank {rank()}: "
    return SaveFailed(f"checkpoint: {where}{reason(error)}")


def _meta(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "world_size": world_size(),
        "vissl_lite": vissl_lite.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
