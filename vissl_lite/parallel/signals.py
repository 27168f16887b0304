"""Signals that ask a run to stop: noted for a while, then given back."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver

ASKS_TO_REQUEUE = (signal.SIGUSR1, signal.SIGUSR2)  # SLURM before the time limit; submitit
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, *ASKS_TO_REQUEUE)


@contextmanager
def caught(
    signals: Sequence[signal.Signals], note: Callable[[int, object], None] | signal.Handlers
) -> Iterator[None]:
    """Calls `note` for these signals; afterwards their handlers are those of before.

    A SIGHUP that is ignored, as under nohup, stays ignored; so does a handler that is not Python's.
    """
    before = {s: signal.getsignal(s) for s in signals}
    nohup = before.get(signal.SIGHUP) == signal.SIG_IGN
    ours = [s for s in signals if before[s] is not None and not (nohup and s == signal.SIGHUP)]
    for s in ours:
        signal.signal(s, note)
    try:
        yield
    finally:
        for s in ours:
            signal.signal(s, before[s])


def more_telling(before: signal.Signals | None, number: int) -> signal.Signals:
    """Of two signals the first; but SIGUSR1 and SIGUSR2, which say what to do next, win."""
    if before is None or number in ASKS_TO_REQUEUE:
        return signal.Signals(number)
    return before


def pass_on(number: signal.Signals) -> None:
    """Gives SIGUSR1 or SIGUSR2 to a handler that was there before ours: submitit's requeues."""
    if number in ASKS_TO_REQUEUE and callable(signal.getsignal(number)):
        signal.raise_signal(number)


def shield_workers() -> None:
    """Lets loader processes ignore SIGUSR1 and SIGUSR2, which SLURM sends to all of a job.

    They are made by a server process that inherits this from the moment when it is started.
    """
    with caught(ASKS_TO_REQUEUE, signal.SIG_IGN):
        forkserver.ensure_running()


def follow_parent() -> None:
    """A worker of a pool: what Ctrl-C means its parent decides, and it ends when that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
