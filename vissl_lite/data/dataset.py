"""From a request to its batch: a pure function of (seed, request), in whichever process.

Shape suffixes: V crops of one view group, B images of this process, S side of a crop, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from vissl_lite.data.batch import Batch, Sample, Tags
from vissl_lite.data.buffers import Buffers
from vissl_lite.data.decode import BrokenImage
from vissl_lite.data.device import Batched
from vissl_lite.data.fast import FastViews, Work
from vissl_lite.data.sampler import Order, Request
from vissl_lite.data.views import Views
from vissl_lite.data.workers import tell
from vissl_lite.errors import ConfigError

MAX_BROKEN_IN_A_ROW = 100


class ViewDataset(Dataset[Batch]):
    """Images of a source as batches of views.

        batch = dataset[request]        in a worker: views and what is left to do with them
        batch = dataset.finish(batch)   where the batch is used: does it

    Args:
        views: `Views` for the reference back end, `FastViews` for the fast one.
        compiled_for: images per batch for which what is left to the device is compiled; 0: never.

    Attributes:
        buffers: where the views of requests with a slot go.
    """

    def __init__(
        self,
        source: Any,
        views: Views | FastViews,
        order: Order,
        seed: int,
        compiled_for: int = 0,
    ):
        self.source, self.views, self.order, self.seed = source, views, order, seed
        self.compiled_for = compiled_for
        self.buffers: Buffers | None = None

    def shapes(self, images: int) -> list[tuple[int, ...]]:
        """Of the uint8 views of so many images, one per group."""
        return [(v, images, s, s, 3) for v, s in zip(self.views.counts, self.views.sizes)]

    def __getitem__(self, request: Request) -> Batch:
        indices = self.order.indices(request.epoch, request.positions)
        views = self._memory(request)
        draws = self.views.draw(self.seed, request.epoch, request.positions)
        samples, broken = [], []
        for b, index in enumerate(indices.tolist()):
            sample, indices[b] = self._write(index, draws, b, views, broken)
            samples.append(sample)
        return Batch(
            views=[torch.from_numpy(view) for view in views] if request.slot is None else [],
            slot=request.slot,
            unfinished=draws.on_device if isinstance(draws, Work) else [],
            index_B=torch.from_numpy(indices),
            label_B=pack_labels(samples),
            tags=pack_tags(samples),
            step=request.step,
            broken=broken,
        )

    def finish(self, batch: Batch) -> Batch:
        """Does what the workers left, on the device where the batch is."""
        if not any(batch.unfinished):
            return replace(batch, unfinished=[])
        views = []
        for run, view_VBHWC, p_VBP in zip(self._left, batch.views, batch.unfinished):
            planes_NCHW = view_VBHWC.flatten(0, 1).permute(0, 3, 1, 2).contiguous()
            done_NCHW = run(planes_NCHW, [p.flatten(0, 1) for p in p_VBP])
            views.append(done_NCHW.unflatten(0, view_VBHWC.shape[:2]).permute(0, 1, 3, 4, 2))
        return replace(batch, views=views, unfinished=[])

    @cached_property
    def _left(self) -> list[Batched]:
        """Per group, the transforms that are left to the device."""
        assert isinstance(self.views, FastViews)
        return [
            Batched(chain.transforms[chain.device :], chain.size, self.compiled_for * count)
            for chain, count in zip(self.views.chains, self.views.counts)
        ]

    def __getstate__(self) -> dict[str, Any]:
        """For workers, which finish nothing; compiled code does not travel."""
        return {key: value for key, value in self.__dict__.items() if key != "_left"}

    def _memory(self, request: Request) -> list[np.ndarray]:
        if request.slot is not None and self.buffers is not None:
            return self.buffers.arrays(request.slot)
        return [np.empty(shape, np.uint8) for shape in self.shapes(len(request.positions))]

    def _write(
        self, index: int, draws: Any, b: int, views: Sequence[np.ndarray], broken: list[str]
    ) -> tuple[Sample, int]:
        """Crops of the image at `index`, or of the next readable one; others go to `broken`."""
        for _ in range(MAX_BROKEN_IN_A_ROW):
            tell(index)
            try:
                sample = self.source[index]
                self.views.write(sample.image, sample.name, draws, b, views)
                return sample, index
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
