"""A table of images, labels and hashtags."""

import glob
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from vissl_lite import SOURCES
from vissl_lite.errors import ConfigError
from vissl_lite.progress import counter
from vissl_lite.sources._classes import TargetWriter, read_names, split_tags
from vissl_lite.sources._columns import Ragged, bytes_writer
from vissl_lite.sources._hashtags import (
    CLASSES,
    check_together,
    class_rows,
    is_classes,
    stamp_of,
)
from vissl_lite.sources._index import prepared, stamp
from vissl_lite.sources._rows import read_rows
from vissl_lite.sources._source import IndexedSource, check_local, existing, existing_file


@SOURCES.register("table")
class Table(IndexedSource):
    """Tables in CSV, TSV, JSONL, Parquet or Arrow: images, and a label or hashtags of each.

    The columns named here are copied once into an index (`_index.py`), because none of these
    formats can be read one row at a time. Images held as bytes are copied too, so the index needs
    their room. It is made again when a file changes.

    A label is a whole number, the class id itself, or a name; tags are names, without '#' and in
    lower case. Ids of names are their places in sorted order, or their lines in `vocabulary`.

    The images.parquet of `vissl-lite hashtags build` needs `tags: classes` and no more: the class
    names come from the classes.tsv beside it, which must be the one that it was made with.

    Args:
        path: a file, or a pattern such as "/data/part-*.parquet", whose files follow one another
            in the order of their names.
        image: column with a path, encoded bytes, or a struct {bytes, path} as of Hugging Face.
        label: column with the class.
        tags: column with a list of tags, or a string of them.
        separator: stands between the tags in a string; one space stands for any white space.
        vocabulary: text file of class names, one per line, so that several tables share their
            ids. Tags that it lacks are left out; a label that it lacks is an error. Or a
            classes.tsv of `hashtags build`: then the tags are its class ids.
        root: folder that relative paths start from; default: the folder of each table.
        index: folder for the index, instead of one in the cache.
        refresh: read the tables again.

    Raises:
        ConfigError: a missing or broken file or column, label and tags at once, a row without
            a label, paths and bytes mixed, an address as image, class ids of another classes.tsv.
    """

    def __init__(
        self,
        path: str,
        image: str = "image",
        label: str | None = None,
        tags: str | None = None,
        separator: str = " ",
        vocabulary: str | None = None,
        root: str | None = None,
        index: str | None = None,
        refresh: bool = False,
    ):
        if label and tags:
            raise ConfigError("table: has label and tags; name one, the classes come from it")
        self.path = path
        files = _files(path)
        words = existing_file(vocabulary, "table.vocabulary") if vocabulary else None
        if tags and words is None and (beside := files[0].with_name(CLASSES)).is_file():
            words = beside if stamp_of(files[0]) else None
        base = existing(root, "table.root") if root else None
        identity = {
            "path": str(Path(path).expanduser().absolute()),
            "columns": [image, label, tags],
            "separator": separator,
            "root": base and str(base),
            "vocabulary": words and str(words),
        }
        state = {
            "files": [[str(file), *stamp(file)] for file in files],
            "words": words and stamp(words),
        }
        target = "labels" if label else "tags" if tags else None
        columns = [column for column in (image, label, tags) if column]
        build = partial(_build, files, columns, target, separator, words, base)
        folder, notes = prepared("table", identity, state, build, index, refresh)
        super().__init__(folder, notes)
        self._images, self._kind = Ragged(folder, "images"), notes["kind"]

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> tuple[bytes | str, str]:
        content = self._images[index].tobytes()
        if self._kind == "path":
            return (path := os.fsdecode(content)), path
        return content, f"{self.path}:{index}"


def _files(path: str) -> list[Path]:
    """The files that a pattern means, sorted by name."""
    check_local(path, "table.path")
    pattern = os.path.expanduser(path)
    if not glob.has_magic(pattern) or os.path.exists(pattern):
        return [existing_file(path, "table.path")]
    files = [Path(file).absolute() for file in sorted(glob.glob(pattern, recursive=True))]
    if not files:
        raise ConfigError(f"table.path: no file fits {path!r}; check the folder and the pattern")
    return files


def _build(
    files: list[Path],
    columns: list[str],
    target: Literal["labels", "tags"] | None,
    separator: str,
    words: Path | None,
    root: Path | None,
    folder: Path,
) -> dict[str, Any]:
    """Writes columns `images` (paths or bytes) and `labels` or `tags`."""
    ids = bool(words and is_classes(words))  # the tags are class ids already
    if target == "tags":
        for file in files:
            check_together(file, words if ids else None)
    names = _names(words, ids) if words else None
    images, targets = bytes_writer(folder, "images"), TargetWriter(folder, target, names, "table")
    kinds: set[str] = set()
    with counter(f"indexing {len(files)} tables") as progress:
        for where, base, (image, *value) in _rows(files, columns):
            kind, content = _content(image, root or base, where)
            kinds |= {kind} if content else set()
            if len(kinds) > 1 or kind not in ("path", "bytes"):
                raise ConfigError(
                    f"table: the image of {where} is {kind}; needs a path or bytes, the same in all"
                    " rows"
                )
            images.add(content)
            if target == "tags":
                tags = split_tags(value[0], separator)
                targets.add(_named(tags, names, where) if ids and names else tags, where)
            elif target:
                targets.add(None if value[0] is None else str(value[0]).strip(), where)
            progress.add()
    if progress.count == 0:
        raise ConfigError(f"table: no rows in {', '.join(map(str, files[:3]))}; check path")
    images.close()
    return {**targets.finish(), "kind": "bytes" if "bytes" in kinds else "path"}


def _rows(files: list[Path], columns: list[str]) -> Iterator[tuple[str, Path, tuple]]:
    for file in files:
        stamp = stamp_of(file)
        base = Path(stamp["root"]) if stamp else file.parent
        for number, row in enumerate(read_rows(file, columns)):
            yield f"row {number} of {file}", base, row


def _names(words: Path, ids: bool) -> list[str]:
    return [row[1] for row in class_rows(words)] if ids else read_names(words, "table.vocabulary")


def _named(tags: list[str], names: list[str], where: str) -> list[str]:
    """The names of class ids."""
    if not all(tag.isdecimal() and int(tag) < len(names) for tag in tags):
        raise ConfigError(
            f"table: {where} has the tags {', '.join(tags)}; with a {CLASSES} as vocabulary they"
            f" must be class ids below {len(names)}"
        )
    return [names[int(tag)] for tag in tags]


def _content(image: Any, base: Path, where: str) -> tuple[str, bytes]:
    """("bytes", encoded image) or ("path", its absolute path); an empty one where there is none."""
    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes):
        return "bytes", image
    if not isinstance(image, str | None):
        return type(image).__name__, b""
    if not image:
        return "path", b""
    check_local(image, f"table: the image of {where}")
    return "path", os.fsencode(os.path.join(base, image))
