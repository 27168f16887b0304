"""What travels from a source to a loss.

Shape suffixes: V crops of one view group, B images of this process, T tags of all B images,
H, W, C height, width, channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass
class Sample:
    """One image of a source, not yet decoded.

    Attributes:
        image: encoded bytes, a path, a PIL image, or a uint8 array [H, W, 3] or [H, W].
        label: class id, or None where the source has no labels.
        tags: class ids of the image's tags, possibly none, or None where the source has no tags.
        name: what a message about this image calls it.
    """

    image: Any
    label: int | None = None
    tags: Sequence[int] | None = None
    name: str = ""


@dataclass
class Tags:
    """Ragged tags: those of image b are `values_T[offsets[b]:offsets[b + 1]]`.

    Attributes:
        values_T: class ids, int64.
        offsets: [B + 1], int64, starts with 0.
        bounds: the offsets on the host, so that slicing does not wait for the device.
    """

    values_T: Tensor
    offsets: Tensor
    bounds: list[int] | None = None

    @classmethod
    def pack(cls, rows: Sequence[Sequence[int]]) -> Tags:
        """From one sequence of class ids per image; each id is kept once per image."""
        unique = [np.unique(np.asarray(row, dtype=np.int64)) for row in rows]
        values = np.concatenate([np.empty(0, np.int64), *unique])
        bounds = [0, *np.cumsum([len(row) for row in unique]).tolist()]
        return cls(torch.from_numpy(values), torch.tensor(bounds), bounds)

    def counts_B(self) -> Tensor:
        """Number of tags per image."""
        return self.offsets.diff()

    def rows_T(self) -> Tensor:
        """The image that each value belongs to."""
        return torch.repeat_interleave(self.counts_B(), output_size=len(self.values_T))

    def slice(self, start: int, stop: int) -> Tags:
        """The tags of images start..stop."""
        bounds = self.bounds or self.offsets.tolist()
        first, last = bounds[start], bounds[stop]
        inner = [bound - first for bound in bounds[start : stop + 1]]
        return Tags(self.values_T[first:last], self.offsets[start : stop + 1] - first, inner)

    def select(self, index_B: Tensor) -> Tags:
        """The tags of some images, in that order."""
        counts_B = self.counts_B()[index_B]
        offsets = torch.cat([counts_B.new_zeros(1), counts_B.cumsum(0)])
        shift_T = torch.repeat_interleave(self.offsets[index_B] - offsets[:-1], counts_B)
        values_T = self.values_T[torch.arange(len(shift_T)) + shift_T]
        return Tags(values_T, offsets, offsets.tolist())

    def map(self, change: Callable[[Tensor], Tensor]) -> Tags:
        """The same tags with both tensors changed, such as moved to a device."""
        return Tags(change(self.values_T), change(self.offsets), self.bounds)


@dataclass
class Batch:
    """The images of one step on this process, B of them, each seen in several crops.

    Attributes:
        views: one uint8 tensor [V, B, H, W, C] per view group, crop-major as in SwAV's code.
        index_B: position of each image in its source (after replacement of broken ones).
        label_B: int64 class ids, or None.
        tags: ragged class ids, or None.
        step: the optimizer step that this batch belongs to, counted from 0.
        broken: names of images that could not be read and were replaced.
        slot: place of the views in the loader's buffers, while they are on their way from a worker.
        unfinished: per view group, parameters [V, B, P] of each transform that a worker left to
            the device; empty once they are applied.
    """

    views: list[Tensor]
    index_B: Tensor
    label_B: Tensor | None = None
    tags: Tags | None = None
    step: int = 0
    broken: list[str] | None = None
    slot: int | None = None
    unfinished: list[list[Tensor]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.index_B)

    def pin_memory(self) -> Batch:
        """For copies to a GPU that nothing waits for."""
        return self.map(lambda tensor: tensor.pin_memory())

    def slice(self, start: int, stop: int) -> Batch:
        """Images start..stop with all their crops: a micro-batch."""
        return replace(
            self,
            views=[view[:, start:stop] for view in self.views],
            index_B=self.index_B[start:stop],
            label_B=None if self.label_B is None else self.label_B[start:stop],
            tags=None if self.tags is None else self.tags.slice(start, stop),
        )

    def to(self, device: torch.device) -> Batch:
        """On another device; only copies to a GPU may still be under way."""
        to_gpu = device.type == "cuda"
        return self.map(lambda tensor: tensor.to(device, non_blocking=to_gpu))

    def each(self, use: Callable[[Tensor], Any]) -> None:
        """Calls `use` with every tensor."""
        self.map(lambda tensor: (use(tensor), tensor)[1])

    def map(self, change: Callable[[Tensor], Any]) -> Batch:
        """The same batch with every tensor changed."""
        return replace(
            self,
            views=[change(view) for view in self.views],
            index_B=change(self.index_B),
            label_B=None if self.label_B is None else change(self.label_B),
            tags=None if self.tags is None else self.tags.map(change),
            unfinished=[[change(p) for p in group] for group in self.unfinished],
        )
