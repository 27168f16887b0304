"""From requests to batches on the device, with the time that training waited for them."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vissl_lite.data.batch import Batch
from vissl_lite.data.buffers import Buffers
from vissl_lite.data.dataset import ViewDataset
from vissl_lite.data.resident import MemoryDataset
from vissl_lite.data.sampler import Request, StepSampler
from vissl_lite.data.stream import Prefetch
from vissl_lite.data.workers import PREFETCH, from_workers
from vissl_lite.parallel.process import is_task_of_srun

HELD = 4  # batches at once where they are used: this one, the next, one on its way, one spare


class Loader:
    """Iterates over batches on `device`, one batch ahead of the training where that helps.

    Attributes:
        waited_s: seconds that the caller has waited for data so far.
    """

    def __init__(
        self,
        dataset: ViewDataset | MemoryDataset,
        sampler: StepSampler,
        device: torch.device,
        workers: int,
    ):
        self.dataset, self.sampler, self.device, self.workers = dataset, sampler, device, workers
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[Batch]:
        batches = self._batches()
        if self.device.type == "cuda":
            return Prefetch(lambda: self._next(batches), self.dataset, self.device)
        # a CPU is busy with the step anyway: nothing to overlap
        return iter(lambda: self._next(batches), None)

    def batch_of(self, step: int) -> Batch:
        """The batch of any step, made again; on the device."""
        batch = self.dataset[self.sampler.request(step)]
        return self.dataset.finish(batch.to(self.device))

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is not None and self.device.type != "cuda":
            batch = self.dataset.finish(batch)
        self.waited_s += time.perf_counter() - start
        return batch

    def _batches(self) -> Iterator[Batch]:
        """With their views in memory of this process."""
        if isinstance(self.dataset, MemoryDataset):
            return (self.dataset[request] for request in self.sampler)
        dataset = copy.copy(self.dataset)
        slots = self.workers * PREFETCH + HELD
        shapes = dataset.shapes(self.sampler.local_batch)
        buffers = Buffers(shapes, slots, workers=self.workers)
        if self.device.type == "cuda":
            buffers.pin()
        dataset.buffers = buffers
        requests = _Slotted(self.sampler, buffers)
        if self.workers == 0:
            return (fetched(dataset[request], buffers) for request in requests)
        batches = from_workers(
            _AsArrays(dataset), requests, self.workers, dataset.source, dataset.views
        )
        return (fetched(batch.map(torch.from_numpy), buffers) for batch in batches)


class _Slotted:
    """Requests, each with a slot to put the views in."""

    def __init__(self, sampler: StepSampler, buffers: Buffers):
        self.sampler, self.buffers = sampler, buffers

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Request]:
        return (replace(request, slot=self.buffers.take()) for request in self.sampler)


class _AsArrays(Dataset):
    """Arrays, whose bytes go through the pipe; tensors would each be a file, opened by both."""

    def __init__(self, dataset: ViewDataset):
        self.dataset = dataset

    def __getitem__(self, request: Request) -> Batch:
        return self.dataset[request].map(Tensor.numpy)


def fetched(batch: Batch, buffers: Buffers) -> Batch:
    """The batch with its views, which came in a slot."""
    if batch.slot is None:
        return batch
    return replace(batch, views=buffers.lend(batch.slot), slot=None)


def choose_workers(workers: int | str, device: torch.device) -> int:
    """Processes per rank: none on a CPU, whose cores train; else this rank's cores, at most 16."""
    if isinstance(workers, int):
        return workers
    if device.type == "cpu":
        return 0
    return max(1, min(16, _cores() - 1))


def _cores() -> int:
    """Of this rank: its share of those that it may run on, or all where srun has bound it to them.

    The tasks of srun that may run on so many cores that the machine has not as many for each of
    them are not bound: they share.
    """
    allowed, ranks_here = len(os.sched_getaffinity(0)), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    bound = is_task_of_srun() and allowed * ranks_here <= (os.cpu_count() or 1)
    return allowed if bound else allowed // ranks_here
