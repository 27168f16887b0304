"""What readers of captions are asked for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from vissl_lite.errors import ConfigError, did_you_mean

BLOCK = 1 << 24  # bytes of text that are parsed at once; a longer row is read whole
SEPARATORS = r"[\s,;]+"  # between the tags of a text


@dataclass(frozen=True)
class Request:
    """Columns of a file, and whom to tell what.

    Attributes:
        tags: the one of `columns` that may hold lists.
        malformed: is called for every row that is left out, because it cannot be read.
        read: is called with the number of bytes of the file that are behind the reader.
    """

    columns: list[str]
    tags: str | None
    malformed: Callable[[], object]
    read: Callable[[int], object]


def check_columns(file: Path, columns: Iterable[str], header: Iterable[str]) -> None:
    """
    Raises:
        ConfigError: the header lacks a column.
    """
    there = list(header)
    for name in columns:
        if name not in there:
            raise ConfigError(
                f"hashtags build: {file} has no column {name!r}{did_you_mean(name, there) or ';'}"
                f" name columns with --image-column, --caption-column, --tags-column; there are:"
                f" {', '.join(there)}"
            )
