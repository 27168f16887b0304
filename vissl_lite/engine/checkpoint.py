"""Checkpoints: folders that are either whole or not there.

    checkpoints/step-00000120/
        state.pt            model, optimizer, loss buffers, ... (tensors, numbers, strings only)
        rank-00001.pt       what belongs to one process, such as its queue
        meta.json           step, world size, versions; written last

A checkpoint is written as `step-N.tmp`, synced to disk and renamed; it is never written twice.
Reading uses `weights_only=True`: nothing in a checkpoint can run code.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.distributed as dist

import vissl_lite
from vissl_lite.errors import ConfigError
from vissl_lite.parallel.collectives import is_distributed, rank, world_size


class Checkpointer:
    """Writes, finds and prunes the checkpoints of one run.

    Args:
        folder: `RUN/checkpoints`.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, step: int, shared: dict[str, Any], own: dict[str, Any]) -> Path:
        """Writes the checkpoint of `step`; all processes call it together.

        Args:
            shared: state that is equal on all ranks; rank 0 writes it.
            own: state of this process.
        """
        final = self.folder / f"step-{step:08d}"
        if final.is_dir():
            return final
        tmp = final.with_suffix(".tmp")
        if rank() == 0:
            shutil.rmtree(tmp, ignore_errors=True)
            tmp.mkdir(parents=True)
        barrier()
        write(tmp / f"rank-{rank():05d}.pt", own)
        if rank() == 0:
            write(tmp / "state.pt", shared)
        barrier()
        if rank() == 0:
            write_text(tmp / "meta.json", json.dumps(_meta(step), indent=2))
            os.rename(tmp, final)
            sync_folder(self.folder)
        barrier()
        return final

    def latest(self) -> Path | None:
        """The newest complete checkpoint."""
        return max(self.complete(), default=None)

    def complete(self) -> list[Path]:
        """All complete checkpoints, oldest first."""
        found = self.folder.glob("step-????????")
        return sorted(path for path in found if (path / "meta.json").is_file())

    def prune(self, keep_last: int, best: Path | None) -> None:
        """Removes all but the last few and the best; and what a killed save has left behind."""
        if rank() != 0:
            return
        for path in [*self.complete()[: -max(keep_last, 1)], *self.folder.glob("step-*.tmp")]:
            if path != best:
                (path / "meta.json").unlink(missing_ok=True)  # half removed is no checkpoint
                shutil.rmtree(path)

    def mark_best(self, checkpoint: Path) -> None:
        """Points the link `best` at a checkpoint, at once."""
        if rank() == 0:
            tmp = self.folder / "best.tmp"
            tmp.unlink(missing_ok=True)
            tmp.symlink_to(checkpoint.name)
            os.replace(tmp, self.folder / "best")

    def best(self) -> Path | None:
        link = self.folder / "best"
        return self.folder / os.readlink(link) if link.is_symlink() else None


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
        reason = str(error).split("\n")[0]
        raise ConfigError(
            f"checkpoint: {file} cannot be read ({type(error).__name__}: {reason}); remove this"
            " checkpoint's folder to go on from the one before it"
        ) from error


def write(file: Path, state: dict[str, Any]) -> None:
    with file.open("wb") as out:
        torch.save(state, out)
        out.flush()
        os.fsync(out.fileno())


def write_text(file: Path, text: str) -> None:
    with file.open("w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def barrier() -> None:
    if is_distributed():
        dist.barrier()


def _meta(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "world_size": world_size(),
        "vissl_lite": vissl_lite.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
