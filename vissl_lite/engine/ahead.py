"""What a model computes of batch after batch; a GPU is given the next before the last is used.

CPU    read 1, compute 1, use 1, read 2, compute 2, use 2, ...
GPU    read 1, start 1, read 2, start 2, use 1, read 3, start 3, use 2, ...
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor


class HasImages(Protocol):
    images_BHWC: Tensor


T = TypeVar("T", bound=HasImages)
Results = dict[str, Tensor]


class OneAhead(Generic[T]):
    """Iterates over (item, what was computed of its images, on the CPU), in order.

    Args:
        compute: from images on the device to tensors there.

    Attributes:
        waited_s: seconds that the device had nothing to do because the next item was being read.
    """

    def __init__(
        self, items: Iterable[T], compute: Callable[[Tensor], Results], device: torch.device
    ):
        self.items, self.compute, self.device = iter(items), compute, device
        self.on_gpu = device.type == "cuda"
        self.waited_s = self.read_s = 0.0
        self.last: Any = None  # when the GPU was through with the item before
        self.error: Exception | None = None  # of reading; what was read before it is used first

    def __iter__(self) -> Iterator[tuple[T, Results]]:
        started = deque()
        try:
            for item in iter(self._read, None):
                started.append(self._start(item))
                if len(started) > self.on_gpu:
                    yield self._finish(*started.popleft())
            while started:
                yield self._finish(*started.popleft())
            if self.error:
                raise self.error
        finally:  # a generator that has workers stops them, also if whoever uses this gives up
            getattr(self.items, "close", lambda: None)()

    def _read(self) -> T | None:
        """The next item; None after the last, and after an error, which waits for its turn."""
        start = time.perf_counter()
        try:
            return next(self.items, None)
        except Exception as error:
            self.error = error
            return None
        finally:
            self.read_s = time.perf_counter() - start

    def _start(self, item: T) -> tuple[T, Results, float, Any, Any]:
        """On a GPU nothing here waits: pinned memory is copied from, and to, beside the host."""
        begin = self._now()
        images = item.images_BHWC.pin_memory() if self.on_gpu else item.images_BHWC
        found = self.compute(images.to(self.device, non_blocking=self.on_gpu))
        results = {name: x.to("cpu", non_blocking=self.on_gpu) for name, x in found.items()}
        return item, results, self.read_s, begin, self._now()

    def _finish(
        self, item: T, results: Results, read_s: float, begin: Any, end: Any
    ) -> tuple[T, Results]:
        if self.on_gpu:
            end.synchronize()
            idle_s = self.last.elapsed_time(begin) / 1e3 if self.last else read_s
            self.last, read_s = end, min(read_s, idle_s)
        self.waited_s += read_s
        return item, results

    def _now(self) -> Any:
        """An event in the GPU's stream."""
        if not self.on_gpu:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event
