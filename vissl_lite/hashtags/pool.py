"""A function on every item, in several processes, in the order of the items."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from vissl_lite.parallel.signals import follow_parent
from vissl_lite.shards.stopped import BuildStopped

AHEAD = 2  # items per process under way


def mapped(
    make: Callable[..., Callable[[Any], Any]],
    arguments: tuple,
    items: Iterable[tuple[Any, Any]],
    processes: int,
) -> Iterator[tuple[Any, Any]]:
    """Pairs (kept, function(sent)) of all pairs (kept, sent), in order, a few at a time in memory.

    Args:
        make: gives every process its function, from `arguments`; both travel there by pickle.
        processes: 1: this one does it.

    Raises:
        BuildStopped: a process was killed.
    """
    if processes == 1:
        function = make(*arguments)
        yield from ((kept, function(sent)) for kept, sent in items)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([make.__module__])
    pool = ProcessPoolExecutor(processes, context, _start, (make, arguments))
    waiting: deque[tuple[Any, Future[Any]]] = deque()
    try:
        for kept, sent in items:
            waiting.append((kept, pool.submit(_apply, sent)))
            del sent
            if len(waiting) >= AHEAD * processes:
                yield _next(waiting)
        while waiting:
            yield _next(waiting)
    except BrokenProcessPool:
        raise BuildStopped(
            "a process was killed, usually by the system when memory ran out; start the command"
            " again with fewer --processes"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _next(waiting: deque[tuple[Any, Future[Any]]]) -> tuple[Any, Any]:
    kept, future = waiting.popleft()
    return kept, future.result()


def _start(make: Callable[..., Callable[[Any], Any]], arguments: tuple) -> None:
    global _function
    _function = make(*arguments)
    follow_parent()


def _apply(sent: Any) -> Any:
    return _function(sent)


_function: Callable[[Any], Any]
