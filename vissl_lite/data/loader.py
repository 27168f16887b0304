"""From requests to batches on the device, with the time that training waited for them."""

import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vissl_lite.data.batch import Batch, Sample, Tags
from vissl_lite.data.decode import BrokenImage, decode
from vissl_lite.data.sampler import Order, Request, StepSampler
from vissl_lite.data.views import Views
from vissl_lite.errors import ConfigError

MAX_BROKEN_IN_A_ROW = 100


class ViewDataset(Dataset[Batch]):
    """`dataset[request]` is the batch of that request: a pure function of (seed, request)."""

    def __init__(self, source: Any, views: Views, order: Order, seed: int):
        self.source, self.views, self.order, self.seed = source, views, order, seed

    def __getitem__(self, request: Request) -> Batch:
        indices = self.order.indices(request.epoch, request.positions)
        groups = [
            np.empty((count, len(indices), size, size, 3), np.uint8)
            for count, size in zip(self.views.counts, self.views.sizes)
        ]
        samples, broken = [], []
        for b, (position, index) in enumerate(zip(request.positions.tolist(), indices.tolist())):
            sample, image, indices[b] = self._readable(index, broken)
            crops = self.views(image, self.seed, request.epoch, position)
            for group, crop_VHWC in zip(groups, crops):
                group[:, b] = crop_VHWC
            samples.append(sample)
        return Batch(
            views=[torch.from_numpy(group) for group in groups],
            index_B=torch.from_numpy(indices),
            label_B=pack_labels(samples),
            tags=pack_tags(samples),
            step=request.step,
            broken=broken,
        )

    def _readable(self, index: int, broken: list[str]) -> tuple[Sample, Any, int]:
        """The image at `index`, or the next readable one; the unreadable go to `broken`."""
        for _ in range(MAX_BROKEN_IN_A_ROW):
            sample = self.source[index]
            try:
                return sample, decode(sample.image, sample.name), index
            except BrokenImage as error:
                broken.append(str(error))
                index = (index + 1) % len(self.source)
        raise ConfigError(
            f"data.source: {MAX_BROKEN_IN_A_ROW} images in a row cannot be read, the last one:"
            f" {broken[-1]}; check that the source points at images"
        )


def pack_labels(samples: list[Sample]) -> torch.Tensor | None:
    """int64 [B], with -1 for an image without a label; None where no image has one."""
    if all(sample.label is None for sample in samples):
        return None
    return torch.tensor([-1 if s.label is None else s.label for s in samples])


def pack_tags(samples: list[Sample]) -> Tags | None:
    if all(sample.tags is None for sample in samples):
        return None
    return Tags.pack([sample.tags or () for sample in samples])


class Loader:
    """Iterates over batches on `device`, one batch ahead of the training where that helps.

    Attributes:
        waited_s: seconds that the caller has waited for data so far.
    """

    def __init__(
        self, dataset: ViewDataset, sampler: StepSampler, device: torch.device, workers: int
    ):
        self.dataset, self.sampler, self.device = dataset, sampler, device
        self.waited_s = 0.0
        options: dict[str, Any] = {}
        if workers:
            options = {"multiprocessing_context": "forkserver", "prefetch_factor": 2}
        self._loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            collate_fn=_as_it_is,  # pyright: ignore[reportArgumentType]
            pin_memory=device.type == "cuda",
            **options,
        )

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self._loader)
        ahead = self._next(batches)
        while ahead is not None:
            batch = ahead
            if (
                self.device.type == "cpu"
            ):  # the CPU is busy with the step anyway: nothing to overlap
                yield batch
                ahead = self._next(batches)
            else:
                ahead = self._next(batches)
                yield batch

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        start = time.perf_counter()
        batch = next(batches, None)
        self.waited_s += time.perf_counter() - start
        return None if batch is None else batch.to(self.device)

    def batch_of(self, step: int) -> Batch:
        """The batch of any step, made again; on the device."""
        return self.dataset[self.sampler.request(step)].to(self.device)


def choose_workers(workers: int | str, device: torch.device) -> int:
    """Processes per rank: none on a CPU, whose cores train; else this rank's cores, at most 16."""
    if isinstance(workers, int):
        return workers
    if device.type == "cpu":
        return 0
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(16, len(os.sched_getaffinity(0)) // ranks_here - 1))


def _as_it_is(batch: Batch) -> Batch:
    return batch
