"""What work that goes on after a kill needs: whole writes and lines, a lock, the same settings."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vissl_lite.errors import ConfigError
from vissl_lite.parallel.agreement import flat, shortened


def write_all(file: Any, content: bytes) -> None:
    """Writes to a file without a buffer, so that no error waits until the file is closed."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


def as_line(record: dict[str, Any]) -> bytes:
    """What `whole_lines` reads."""
    return json.dumps(record).encode() + b"\n"


def whole_lines(path: str | Path) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Each record, where its line begins and where it ends, up to the first that is cut off."""
    start = 0
    with open(path, "rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:  # cut off, or zeros after a power failure
                return
            if not line.endswith(b"\n"):
                return
            yield record, start, start + len(line)
            start += len(line)


def lock(file: Any, taken: str) -> None:
    """Keeps others from locking `file`, an open file or its descriptor, until it is closed.

    Raises:
        ConfigError: `taken`, since another process has locked it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(taken) from None


def check_same(own: Mapping[str, Any], there: Mapping[str, Any], other: str, remedy: str) -> None:
    """Refuses to go on with work that was begun in another way.

    Args:
        own, there: all that decides the result, of this process and of what has been begun.
        other, remedy: begin and end of the sentence.

    Raises:
        ConfigError: they differ; it names the first key, in alphabetical order, and both values.
    """
    ours, found = flat(own), flat(there)
    for key in sorted(ours.keys() | found.keys()):
        if ours.get(key) != found.get(key):
            values = shortened(found.get(key)), shortened(ours.get(key))
            raise ConfigError(f"{other}: {key} is {values[0]} there and {values[1]} here; {remedy}")
