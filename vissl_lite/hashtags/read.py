"""Images with their captions and tags, in batches, from any number of files."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vissl_lite.errors import ConfigError
from vissl_lite.hashtags.formats import ROWS, batches
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
LISTS = (pa.types.is_list, pa.types.is_large_list)


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

    Rows without an image are left out, and lines of CSV with another number of values; `skipped`
    counts both.

    Args:
        files: absolute paths.
        root: folder that relative images start from, for all files; without it, that of each file.
    """

    files: list[Path]
    columns: Columns
    root: Path | None = None
    skipped: Counter[str] = field(default_factory=Counter)

    def common_root(self) -> Path:
        """The folder that the images as they come from here are relative to."""
        return Path(os.path.commonpath([self.root or file.parent for file in self.files]))

    def __iter__(self) -> Iterator[tuple[pa.Array, Texts]]:
        self.skipped.clear()
        for file in self.files:
            for batch in batches(file, self.columns.names(), self._malformed):
                for start in range(0, batch.num_rows, ROWS):
                    part = self._with_image(file, batch.slice(start, ROWS))
                    if part.num_rows:
                        yield self._parts(file, part)

    def _malformed(self) -> None:
        self.skipped["malformed"] += 1

    def _with_image(self, file: Path, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows that have an image; its column as large_binary."""
        name = self.columns.image
        image = batch[name]
        if pa.types.is_integer(image.type):  # ids
            image = image.cast(pa.string())
        image = _text(image, file, name)
        good = pc.fill_null(pc.greater(pc.binary_length(image), 0), False)
        if len(broken := broken_rows(image)):
            good = pc.and_(good, pa.array(~np.isin(np.arange(len(image)), broken)))
        self.skipped["without image"] += len(good) - good.true_count
        place = batch.schema.get_field_index(name)
        return batch.set_column(place, name, image).filter(good)

    def _parts(self, file: Path, batch: pa.RecordBatch) -> tuple[pa.Array, Texts]:
        image, caption, tags = self.columns.image, self.columns.caption, self.columns.tags
        texts = Texts(
            None if caption is None else _text(batch[caption], file, caption),
            None if tags is None else _tags(batch[tags], file, tags),
        )
        return self._under_root(file, batch[image].cast(pa.large_string())), texts

    def _under_root(self, file: Path, images: pa.Array) -> pa.Array:
        """Relative paths start from the common root of all files."""
        prefix = os.path.relpath(self.root or file.parent, self.common_root())
        if prefix == ".":
            return images
        whole = pc.or_(pc.starts_with(images, "/"), pc.match_substring(images, "://"))
        prefixes = pa.scalar(prefix, pa.large_string())
        slash = pa.scalar("/", pa.large_string())
        return pc.if_else(whole, images, pc.binary_join_element_wise(prefixes, images, slash))


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
        column = pc.split_pattern_regex(_text(column, file, name), r"[\s,;]+")
    elif not _is(column.type.value_type, TEXTS):
        raise ConfigError(
            f"hashtags build: column {name!r} of {file} holds {_short(column.type)}, needs text or"
            " lists of text"
        )
    return column.cast(pa.list_(pa.large_binary()))


def _is(kind: pa.DataType, kinds: tuple) -> bool:
    return any(accepts(kind) for accepts in kinds)


def _short(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) < 60 else f"{text[:60]}..."
