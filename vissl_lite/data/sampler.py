"""The order of the images: a pure function of (seed, epoch), computed position by position.

Nothing is stored, whatever the size of the source, and nothing depends on the number of ranks or
workers: the global batch is defined first, ranks take slices of it. Resuming needs one number,
the step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from vissl_lite.data.random import permute
from vissl_lite.errors import ConfigError


class Order:
    """Position in an epoch -> index in the source.

    A single source is permuted anew in each epoch. A mixture with weights gives part k its exact
    share of every epoch and runs through each part in full permutations of its own, so that
    small parts repeat and large ones are seen whole over several epochs.

    Args:
        parts: number of images of each part of the source; one number for a plain source.
        weights: relative shares of the parts; None: by their lengths.
        seed: of the run.
    """

    def __init__(self, parts: Sequence[int], weights: Sequence[float] | None = None, seed: int = 0):
        self.parts = np.asarray(parts, dtype=np.int64)
        self.seed = seed
        self.size = int(self.parts.sum())
        shares = self.parts / self.size if weights is None else np.asarray(weights, dtype=float)
        ends = np.rint(np.cumsum(shares) / shares.sum() * self.size).astype(np.int64)
        self.ends = ends  # of the parts' shares of an epoch
        self.starts = np.concatenate([[0], ends[:-1]])
        self.natural = weights is None

    @classmethod
    def of(cls, source: Any, seed: int) -> "Order":
        parts = getattr(source, "parts", None)
        weights = getattr(source, "weights", None) if parts else None
        return cls(parts or [len(source)], weights, seed)

    def __len__(self) -> int:
        return self.size

    def indices(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """Indices of the images at `positions` (int64, any subset, in any order) of an epoch."""
        drawn = permute(positions, self.size, self.seed, epoch)
        return drawn if self.natural else self._within_parts(epoch, drawn)

    def _within_parts(self, epoch: int, drawn: np.ndarray) -> np.ndarray:
        part = np.searchsorted(self.ends, drawn, side="right")
        share = (self.ends - self.starts)[part]
        nth = epoch * share + drawn - self.starts[part]  # draws from this part since the start
        offsets = np.concatenate([[0], np.cumsum(self.parts)[:-1]])
        indices = np.empty_like(drawn)
        rounds = np.stack([part, nth // self.parts[part]], axis=1)
        for k, round_ in np.unique(rounds, axis=0):
            here = (rounds == (k, round_)).all(axis=1)
            length = int(self.parts[k])
            within = permute(nth[here] % length, length, self.seed, int(round_), part=int(k) + 1)
            indices[here] = offsets[k] + within
        return indices


@dataclass(frozen=True)
class Request:
    """What a process asks of its loader for one step."""

    step: int
    epoch: int
    positions: np.ndarray
    slot: int | None = None  # of `buffers.Buffers`, where the views go


class StepSampler(Sampler[Request]):
    """One `Request` per step, from `start` to `total_steps`, through all epochs without a break.

    Args:
        size: images per epoch; what is left over after the last full global batch is dropped.
        global_batch: images per step of all ranks together; a multiple of `world`.

    Raises:
        ConfigError: the source is smaller than a batch.
    """

    def __init__(
        self, size: int, global_batch: int, total_steps: int, *, start: int, rank: int, world: int
    ):
        if size < global_batch:
            raise ConfigError(
                f"train.batch_size: {global_batch} images per step, but the source has only {size};"
                f" take at most {size}"
            )
        self.steps_per_epoch = size // global_batch
        self.global_batch, self.total_steps, self.start = global_batch, total_steps, start
        self.local_batch = global_batch // world
        self.offset = rank * self.local_batch

    def __len__(self) -> int:
        return self.total_steps - self.start

    def __iter__(self) -> Iterator[Request]:
        return (self.request(step) for step in range(self.start, self.total_steps))

    def request(self, step: int) -> Request:
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        first = step_in_epoch * self.global_batch + self.offset
        return Request(step, epoch, np.arange(first, first + self.local_batch, dtype=np.int64))
