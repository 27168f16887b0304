"""Image files named in a list."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from vissl_lite import SOURCES
from vissl_lite.errors import ConfigError
from vissl_lite.progress import counter
from vissl_lite.sources._classes import TargetWriter
from vissl_lite.sources._columns import Strings, bytes_writer
from vissl_lite.sources._files import read_excluded
from vissl_lite.sources._index import prepared, stamp
from vissl_lite.sources._source import IndexedSource, existing, existing_file


@SOURCES.register("file_list")
class FileList(IndexedSource):
    """Image files named in a text file, one path per line, or in a .npy array of strings.

    The list is read once into an index (`_index.py`), and again when a file given here changes.

    Args:
        path: the list. Empty lines of text do not count.
        root: folder that relative paths start from; default: the folder of the list.
        labels: class of each image in the same order, as text or .npy: whole numbers, which are the
            ids, or names, whose ids are their places in sorted order.
        exclude: text file of images to leave out, one path as in the list or file name per line.
        index: folder for the index, instead of one in the cache.
        refresh: read the list again.

    Raises:
        ConfigError: a file is missing, empty or no list of strings, or labels do not fit the paths.
    """

    def __init__(
        self,
        path: str,
        root: str | None = None,
        labels: str | None = None,
        exclude: str | None = None,
        index: str | None = None,
        refresh: bool = False,
    ):
        self.path = existing_file(path, "file_list.path")
        self.root = str(existing(root, "file_list.root") if root else self.path.parent)
        given: dict[str, Path | None] = {"path": self.path}
        for key, value in (("labels", labels), ("exclude", exclude)):
            given[key] = existing_file(value, f"file_list.{key}") if value else None
        identity = {key: file and str(file) for key, file in given.items()}
        state = {"stamps": [file and stamp(file) for file in given.values()]}
        build = partial(_build, self.path, given["labels"], given["exclude"])
        folder, notes = prepared("file_list", identity, state, build, index, refresh)
        super().__init__(folder, notes)
        self._paths = Strings(folder, "paths")

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, index: int) -> tuple[str, str]:
        name = self._paths[index]
        return os.path.join(self.root, name), name


def _build(path: Path, labels: Path | None, exclude: Path | None, folder: Path) -> dict:
    """Writes columns `paths` and, with labels, `labels`."""
    left_out = read_excluded(exclude)
    paths = bytes_writer(folder, "paths")
    targets = TargetWriter(folder, "labels" if labels else None, None, "file_list.labels")
    classes = _lines(labels) if labels else None
    count = 0
    with counter(f"indexing {path}") as progress:
        for line in _lines(path):
            count += 1
            name = next(classes, None) if classes else None
            if left_out and not left_out.isdisjoint(
                (os.fsdecode(line), os.path.basename(os.fsdecode(line)))
            ):
                continue
            paths.add(line)
            targets.add(name and os.fsdecode(name), f"line {count}")
            progress.add()
    paths.close()
    _check(path, labels, count, progress.count, sum(1 for _ in classes or ()))
    return targets.finish()


def _lines(path: Path) -> Iterator[bytes]:
    """The entries of a list, a text file or a .npy file, without keeping them."""
    if path.suffix != ".npy":
        with open(path, "rb") as file:
            yield from filter(None, map(bytes.strip, file))
        return
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise ConfigError(
            f"file_list: {path} cannot be read without unpickling ({error}); save it as strings:"
            " np.save(path, np.array(paths, dtype=str))"
        ) from error
    if array.ndim != 1 or array.dtype.kind not in "USiu":
        raise ConfigError(
            f"file_list: {path} holds {array.dtype} of shape {array.shape}; needs a one-dimensional"
            " array of strings, or whole numbers for labels"
        )
    for entry in array:
        yield bytes(entry) if array.dtype.kind == "S" else os.fsencode(str(entry))


def _check(path: Path, labels: Path | None, count: int, kept: int, surplus: int) -> None:
    if kept == 0:
        raise ConfigError(
            f"file_list: {path} names no image that is not excluded; needs one path per line"
        )
    if surplus:
        raise ConfigError(
            f"file_list: {labels} has {count + surplus:,} labels for {count:,} paths in {path};"
            " give one per path, in the same order"
        )
