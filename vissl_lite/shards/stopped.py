"""What is said when shards cannot be written on."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class BuildStopped(RuntimeError):
    """The build could not go on; what is written stays, and the same command goes on from there.

    The command line prints it without a traceback and exits with code 1.
    """


@contextmanager
def as_stopped(out: Path) -> Iterator[None]:
    """
    Raises:
        BuildStopped: in place of an OSError of writing.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full" if full else f"{error.filename or out}: {error.strerror}"
        remedy = "make room" if full else "mend that"
        raise BuildStopped(
            f"{out} cannot be written, {what}; what is there stays: {remedy} and start the same"
            " command again, it goes on from there"
        ) from error
