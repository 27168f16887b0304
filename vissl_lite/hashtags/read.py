"""Images with their captions and tags, in batches, from any number of files."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vissl_lite.errors import ConfigError
from vissl_lite.hashtags.formats import BYTES, ROWS, batches
from vissl_lite.hashtags.header import SEPARATORS, Request
from vissl_lite.hashtags.utf8 import broken_rows

TEXTS = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_null,
)
TEXT_COLUMNS = ("captions", "tags")
LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
LONG = 1 << 16  # bytes; a longer text of CSV may be due to a quote that nothing closes


@dataclass(frozen=True)
class Columns:
    """Names of the columns; captions, tags or both."""

    image: str
    caption: str | None
    tags: str | None

    def names(self) -> list[str]:
        return list(dict.fromkeys(filter(None, (self.image, self.caption, self.tags))))


@dataclass(frozen=True)
class Texts:
    """Captions, large_binary [N], and lists of tags, list<large_binary> [N]; may be no UTF-8."""

    captions: pa.Array | None
    tags: pa.Array | None

    def __len__(self) -> int:
        return len(next(texts for texts in (self.captions, self.tags) if texts is not None))


@dataclass
class Captions:
    """All rows of some files, in order, as pairs (images, large_string [N], and Texts).

    Rows without an image are left out, and malformed ones (`formats.batches`).

    Attributes:
        files: absolute paths.
        root: folder that relative images start from, for all files; without it, that of each file.
        skipped: how many rows are left out, by reason.
        read: bytes of the files that are behind the reader, about.
        long: texts of CSV of more than LONG bytes; first_long: the image of the first.
    """

    files: list[Path]
    columns: Columns
    root: Path | None = None
    skipped: Counter[str] = field(default_factory=Counter)
    read: int = 0
    long: int = 0
    first_long: str = ""

    def common_root(self) -> Path:
        """The folder that the images as they come from here are relative to."""
        return Path(os.path.commonpath([self.root or file.parent for file in self.files]))

    def __iter__(self) -> Iterator[tuple[pa.Array, Texts]]:
        self.skipped.clear()
        self.long, before = 0, 0
        for file in self.files:
            for batch in batches(file, self._request(before)):
                for start in range(0, batch.num_rows, ROWS):
                    for part in _halves(self._plain(file, batch.slice(start, ROWS))):
                        part = self._with_image(part)  # a copy, small to send
                        if part.num_rows:
                            yield self._under_root(file, part["image"]), _texts(part)
            before += file.stat().st_size

    def _request(self, before: int) -> Request:
        """For a file that has `before` bytes of other files before it."""

        def read(size: int) -> None:
            self.read = before + size

        malformed = partial(self.skipped.update, ["malformed"])
        return Request(self.columns.names(), self.columns.tags, malformed, read)

    def _plain(self, file: Path, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Columns image, captions, tags: large_binary, and lists of it."""
        image, caption, tags = self.columns.image, self.columns.caption, self.columns.tags
        images = batch[image]
        if pa.types.is_integer(images.type):  # ids
            images = images.cast(pa.string())
        found = {"image": _text(images, file, image)}
        if caption is not None:
            found["captions"] = _text(batch[caption], file, caption)
        if tags is not None:
            found["tags"] = _tags(batch[tags], file, tags)
        for name in self.columns.names():
            self._count_long(found["image"], batch[name])
        return pa.RecordBatch.from_pydict(found)

    def _count_long(self, images: pa.Array, column: pa.Array) -> None:
        if not pa.types.is_binary(column.type):
            return
        long = images.filter(pc.greater(pc.binary_length(column), LONG))
        if len(long) and not self.long:
            self.first_long = (long[0].as_py() or b"").decode(errors="replace")
        self.long += len(long)

    def _with_image(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows that have an image."""
        images = batch["image"]
        good = pc.fill_null(pc.greater(pc.binary_length(images), 0), False)
        if len(broken := broken_rows(images)):
            good = pc.and_(good, pa.array(~np.isin(np.arange(len(images)), broken)))
        self.skipped["without image"] += len(good) - good.true_count
        return batch.filter(good)

    def _under_root(self, file: Path, images: pa.Array) -> pa.Array:
        """As large_string; relative paths start from the common root of all files."""
        images = images.cast(pa.large_string())
        prefix = os.path.relpath(self.root or file.parent, self.common_root())
        if prefix == ".":
            return images
        whole = pc.or_(pc.starts_with(images, "/"), pc.match_substring(images, "://"))
        prefixes = pa.scalar(prefix, pa.large_string())
        slash = pa.scalar("/", pa.large_string())
        return pc.if_else(whole, images, pc.binary_join_element_wise(prefixes, images, slash))


def _halves(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in parts of at most BYTES, or of one row."""
    rows = batch.num_rows
    if rows <= 1 or batch.nbytes <= BYTES:
        yield batch
    else:
        yield from _halves(batch.slice(0, rows // 2))
        yield from _halves(batch.slice(rows // 2))


def _texts(batch: pa.RecordBatch) -> Texts:
    return Texts(*(batch[name] if name in batch.schema.names else None for name in TEXT_COLUMNS))


def _text(column: pa.Array, file: Path, name: str) -> pa.Array:
    """A column of text as large_binary.

    Raises:
        ConfigError: it holds something else.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is(column.type, TEXTS):
        return column.cast(pa.large_binary())
    hint = "; name a column of lists with --tags-column" if _is(column.type, LISTS) else ""
    raise ConfigError(
        f"hashtags build: column {name!r} of {file} holds {_short(column.type)}, needs text{hint}"
    )


def _tags(column: pa.Array, file: Path, name: str) -> pa.Array:
    """Lists as they are; a text is split at white space, commas and semicolons."""
    if not _is(column.type, LISTS):
        column = pc.split_pattern_regex(_text(column, file, name), SEPARATORS)
    elif not _is(_value_type(column.type.value_type), TEXTS):
        raise ConfigError(
            f"hashtags build: column {name!r} of {file} holds {_short(column.type)}, needs text or"
            " lists of text"
        )
    return column.cast(pa.list_(pa.large_binary()))


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is(kind: pa.DataType, kinds: tuple) -> bool:
    return any(accepts(kind) for accepts in kinds)


def _short(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) < 60 else f"{text[:60]}..."
