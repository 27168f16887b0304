"""Processes that convert images, in the order of the source."""

import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from vissl_lite.parallel.signals import follow_parent
from vissl_lite.shards.convert import Chunk, Settings, convert_chunk
from vissl_lite.shards.stopped import BuildStopped

CHUNK = 32  # images that a worker converts at once
AHEAD = 3  # chunks per worker under way


def converted(source: Any, settings: Settings, start: int, workers: int) -> Iterator[Chunk]:
    """The images of a source from `start` on.

    Raises:
        BuildStopped: a worker was killed.
    """
    stop = len(source)
    ranges = ((i, min(i + CHUNK, stop)) for i in range(start, stop, CHUNK))
    if workers == 1:
        yield from (convert_chunk(source, settings, *pair) for pair in ranges)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, type(source).__module__])
    pool = ProcessPoolExecutor(workers, context, _start_worker, (source, settings))
    waiting: deque[Future[Chunk]] = deque()
    try:
        for pair in ranges:
            waiting.append(pool.submit(_convert, *pair))
            if len(waiting) >= AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise BuildStopped(
            "a worker process was killed, usually by the system when memory ran out; start the same"
            " command again with fewer --workers: it goes on from there"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(source: Any, settings: Settings) -> None:
    global _work
    _work = source, settings
    follow_parent()


def _convert(start: int, stop: int) -> Chunk:
    return convert_chunk(*_work, start, stop)


_work: tuple[Any, Settings]
