"""Memory for batches that is used again and again.

A fresh buffer costs more than what is written into it: the system maps and clears every page, and
between processes each would be mapped once more. So one block is shared from the start, workers
write into it, and what travels between processes is the number of a slot.
"""

from __future__ import annotations

import math
import shutil
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vissl_lite.errors import ConfigError

SHARED_MEMORY = "/dev/shm"


class Buffers:
    """Slots for the uint8 views of a batch.

    A slot is taken for a request, written by a worker, and lent to whoever uses the batch; it is
    free again when the last tensor of that batch is gone, so that a batch which somebody keeps is
    never overwritten.

    Args:
        shapes: of the tensors in a slot.
        slots: how many batches may be under way.
        workers: processes that the memory is shared with, if any.

    Raises:
        ConfigError: the system has less shared memory than that.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], slots: int, workers: int = 0):
        self.shapes = list(shapes)
        self.sizes = [math.prod(shape) for shape in shapes]
        if workers:
            _check_room(slots * sum(self.sizes), workers)
        self.block = torch.empty((slots, sum(self.sizes)), dtype=torch.uint8)
        if workers:
            self.block.share_memory_()
        self.free = list(range(slots))

    def take(self) -> int | None:
        """A free slot, or None: then the batch gets memory of its own."""
        return self.free.pop() if self.free else None

    def arrays(self, slot: int) -> list[np.ndarray]:
        """For the worker that fills it."""
        return self._split(self.block[slot].numpy())

    def lend(self, slot: int) -> list[Tensor]:
        """The tensors of a slot, which is free again once all of them are gone."""
        whole = self.block[slot].numpy()  # a new object, which all that is cut from it keeps alive
        weakref.finalize(whole, self.free.append, slot)
        return [torch.from_numpy(part) for part in self._split(whole)]

    def pin(self) -> None:
        """Lets a GPU copy from the slots while this process goes on."""
        cuda: Any = torch.cuda.cudart()
        start = self.block.data_ptr()
        torch.cuda.check_error(cuda.cudaHostRegister(start, self.block.nbytes, 0))
        weakref.finalize(self.block, cuda.cudaHostUnregister, start)

    def _split(self, whole: np.ndarray) -> list[np.ndarray]:
        ends = np.cumsum(self.sizes)
        return [
            whole[end - size : end].reshape(shape)
            for shape, size, end in zip(self.shapes, self.sizes, ends)
        ]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"free": []}  # slots are taken and freed where batches are used


def _check_room(needed: int, workers: int) -> None:
    try:
        room = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:  # no such place on this system: what is there is found out by asking for it
        return
    if needed > room:
        raise ConfigError(
            f"data.workers: {workers} workers need {needed / 1e6:.0f} MB of shared memory, and"
            f" {SHARED_MEMORY} has {room / 1e6:.0f} MB free; take fewer workers or a smaller"
            " train.batch_size, or give the machine or container more (docker: --shm-size)"
        )
