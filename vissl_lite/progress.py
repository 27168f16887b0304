"""Progress of long listings: a bar in a terminal, a plain line now and then in a log file."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

QUIET = 1.0  # seconds; what takes less is not worth a line
EVERY = 10.0  # seconds between plain lines


class Counter:
    """Counts things; subclasses show the count. Cheap enough to be called for every image."""

    interval = EVERY

    def __init__(self, title: str, total: int | None = None):
        self.title, self.total, self.count = title, total, 0
        self.started = self.shown = time.monotonic()

    def add(self, n: int = 1) -> None:
        self.count += n
        if self.count % 1024 < n and (now := time.monotonic()) - self.shown > self.interval:
            self.shown = now
            self.show()

    def show(self) -> None:
        seconds = time.monotonic() - self.started
        share = f" of {self.total:,}" if self.total and self.count < self.total else ""
        left = f", {self._left(seconds):.0f} s left" if share and self.count else ""
        line = f"{self.title}: {self.count:,}{share} in {seconds:.0f} s{left}"
        print(line, file=sys.stderr, flush=True)

    def _left(self, seconds: float) -> float:
        return seconds * ((self.total or 0) / self.count - 1)


class Bar(Counter):
    """A counter that moves a rich progress bar ten times a second."""

    interval = 0.1

    def __init__(self, title: str, total: int | None, progress: Progress):
        super().__init__(title, total)
        self.progress, self.task = progress, progress.add_task(title, total=total)

    def show(self) -> None:
        self.progress.update(self.task, completed=self.count)


@contextmanager
def counter(title: str, total: int | None = None) -> Iterator[Counter]:
    """Yields a `Counter`; says at the end how many it counted, if that took over a second."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(),)
    if total is not None:
        times = (
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
    if sys.stderr.isatty():
        console = Console(stderr=True)
        with Progress(*columns, *times, console=console) as progress:
            bar = Bar(title, total, progress)
            yield bar
            bar.show()
        return
    plain = Counter(title, total)
    yield plain
    if time.monotonic() - plain.started > QUIET:
        plain.show()
