"""A run that is told to stop in the midst of an evaluation."""

from collections.abc import Callable


class Stopped(Exception):
    """What a stop point raises, as that of the hook `evaluate` does."""


def stop_after(calls: int) -> Callable[[], None]:
    """A stop point that lets so many calls pass and stops at the next."""
    left = iter(range(calls))

    def stop_point() -> None:
        if next(left, None) is None:
            raise Stopped

    return stop_point
