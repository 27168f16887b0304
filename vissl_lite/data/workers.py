"""Processes that make batches: how they start, and what is said when one dies."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from typing import Any

from vissl_lite.data.fast import FastViews
from vissl_lite.data.views import Views

HINTS = {
    signal.SIGKILL: "usually by the system, when memory ran out: take fewer data.workers",
    signal.SIGBUS: "shared memory ran out: take fewer data.workers, or give the machine more of it",
    signal.SIGSEGV: "a decoder crashed: leave this image out",
}


def as_it_is(batch: Any) -> Any:
    """Instead of a function that collates: the dataset makes whole batches."""
    return batch


def forkserver(source: Any, views: Views | FastViews) -> Any:
    """A way to start workers that share what they import with the process they are forked from.

    Spawned ones would each take 400 MB and seconds for importing torch again; plain forks of a
    process with threads and a GPU are not safe.
    """
    context = multiprocessing.get_context("forkserver")
    groups = views.groups if isinstance(views, Views) else views.views.groups
    parts = [views, source, *(transform for group in groups for transform in group.transforms)]
    modules = dict.fromkeys(type(part).__module__ for part in parts)
    context.set_forkserver_preload(
        ["torch.utils.data", "vissl_lite.data.dataset", "cv2", "simplejpeg", *modules]
    )
    return context


def epitaph(iterator: Any, at: Sequence[int], source: Any) -> str:
    """Which worker died of what, and at which image; empty if all of them live."""
    for number, process in enumerate(getattr(iterator, "_workers", ())):
        if process.exitcode not in (None, 0):
            where = f"at {_named(source, at[number])}" if at[number] >= 0 else "between two images"
            return f"data worker {number} (process {process.pid}) {_end(process.exitcode)}, {where}"
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


def _named(source: Any, index: int) -> str:
    name = source[index].name
    return f"image {index}" + (f", {name}" if name else "")
