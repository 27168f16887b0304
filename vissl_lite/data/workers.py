"""Processes that make batches: how they start, and what is said when one dies."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from vissl_lite.data.fast import FastViews
from vissl_lite.data.views import Views
from vissl_lite.errors import ConfigError, WorkerDied

PREFETCH = 2  # batches that each worker is ahead
NOWHERE = -1  # in place of the index of an image
ENDING_S = 2.0  # a worker's connections may be gone before its end is known
HINTS = {
    signal.SIGKILL: "usually by the system, when memory ran out: take fewer workers",
    signal.SIGBUS: "shared memory ran out: take fewer workers, or give the machine more of it",
    signal.SIGSEGV: "a decoder crashed: leave this image out",
}


def from_workers(
    dataset: Dataset,
    requests: Iterable[Any],
    workers: int,
    source: Any,
    views: Views | FastViews,
) -> Iterator[Any]:
    """`dataset[request]` for each request, in order, made by other processes.

    Args:
        dataset: which calls `tell` before it reads an image.
        source, views: that the dataset uses; the workers share what they import. A dead worker's
            image is named as `source` names it.

    Raises:
        ConfigError: a mistake of the user that showed in a worker.
        WorkerDied: a worker has ended.
    """
    at = torch.full((workers,), NOWHERE).share_memory_()
    loader = DataLoader(
        _HandsOver(dataset, at),
        batch_size=None,
        sampler=requests,
        num_workers=workers,
        prefetch_factor=PREFETCH,
        collate_fn=_as_it_is,  # pyright: ignore[reportArgumentType]
        # seeded as this process is, without a number of its own, which training would lack
        generator=torch.Generator().manual_seed(torch.initial_seed()),
        multiprocessing_context=forkserver(dataset, source, views),
    )
    batches: Any = iter(loader)
    try:
        for batch in batches:
            if isinstance(batch, ConfigError):
                raise ConfigError(*batch.problems)
            yield batch
    except (RuntimeError, OSError, EOFError) as error:
        wait([process.sentinel for process in batches._workers], ENDING_S)
        if text := epitaph(batches, source, at.tolist()):
            end_all(batches)
            raise WorkerDied(text) from error
        raise
    finally:  # now, not when garbage is collected: then it can take five seconds per worker
        batches._shutdown_workers()


def tell(index: int) -> None:
    """Leaves a note of the image that comes next, in case that it ends this process."""
    worker = get_worker_info()
    if worker is not None and isinstance(worker.dataset, _HandsOver):
        worker.dataset.at[worker.id] = index


class _HandsOver(Dataset):
    """Hands over mistakes of the user as they are: torch would wrap them in its traceback.

    Args:
        at: index of the image that each worker is at, in memory that all share.
    """

    def __init__(self, dataset: Any, at: Tensor):
        self.dataset, self.at = dataset, at

    def __getitem__(self, request: Any) -> Any:
        try:
            return self.dataset[request]
        except ConfigError as error:
            return error


def _as_it_is(batch: Any) -> Any:
    """Instead of a function that collates: the dataset makes whole batches."""
    return batch


def forkserver(dataset: Any, source: Any, views: Views | FastViews) -> Any:
    """A way to start workers that share what they import with the process they are forked from.

    Spawned ones would each take 400 MB and seconds for importing torch again; plain forks of a
    process with threads and a GPU are not safe.
    """
    context = multiprocessing.get_context("forkserver")
    transforms = [transform for group in views.groups for transform in group.transforms]
    parts = [views, dataset, source, *transforms]
    modules = dict.fromkeys(type(part).__module__ for part in parts)
    context.set_forkserver_preload(
        ["torch.utils.data", "vissl_lite.data.dataset", "cv2", "simplejpeg", *modules]
    )
    return context


def epitaph(iterator: Any, source: Any, at: Sequence[int]) -> str:
    """Which worker died of what, and at which image; empty if all of them live."""
    for number, process in enumerate(getattr(iterator, "_workers", ())):
        if process.exitcode not in (None, 0):
            end, where = _end(process.exitcode), _place(source, at[number])
            return f"data worker {number} (process {process.pid}) {end}, {where}"
    return ""


def end_all(iterator: Any) -> None:
    """Ends the others at once; torch would wait for each of them to end by itself."""
    for process in iterator._workers:
        process.kill()


def _end(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    number = signal.Signals(-code)
    hint = f" ({HINTS[number]})" if number in HINTS else ""
    return f"was killed by {number.name}{hint}"


def _place(source: Any, index: int) -> str:
    if index == NOWHERE:
        return "between two images"
    name = source[index].name
    return f"at image {index}" + (f", {name}" if name else "")
