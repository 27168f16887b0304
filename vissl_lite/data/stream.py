"""Copies to the GPU, and what is left to do there, beside the training."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch

from vissl_lite.data.batch import Batch


class Prefetch(Iterator[Batch]):
    """Batches on a GPU, the next one always under way on a stream of its own.

    Args:
        fetch: gives the next batch, or None at the end.
        dataset: finishes batches on the device.
    """

    def __init__(self, fetch: Callable[[], Batch | None], dataset: Any, device: torch.device):
        self.fetch, self.dataset, self.device = fetch, dataset, device
        self.stream = torch.cuda.Stream(device)
        self.stream.wait_stream(torch.cuda.current_stream(device))  # images may be on their way
        self.copying: deque[tuple[torch.cuda.Event, Batch]] = deque()
        self.ahead = self._start()

    def __next__(self) -> Batch:
        batch = self.ahead
        if batch is None:
            raise StopIteration
        training = torch.cuda.current_stream(self.device)
        training.wait_stream(self.stream)
        batch.each(lambda tensor: tensor.record_stream(training))
        self.ahead = self._start()
        return batch

    def _start(self) -> Batch | None:
        """Begins the next batch, on the stream of its own."""
        with torch.cuda.stream(self.stream):
            batch = self.fetch()
            return None if batch is None else self.dataset.finish(self._copied(batch))

    def _copied(self, batch: Batch) -> Batch:
        """On the device; the memory that it comes from is kept until the copy is done."""
        if batch.index_B.is_cuda:
            return batch
        while self.copying and self.copying[0][0].query():
            self.copying.popleft()
        pinned, done = batch.pin_memory(), torch.cuda.Event()
        on_device = pinned.to(self.device)
        done.record(self.stream)
        self.copying.append((done, pinned))
        return on_device
