"""A source less some images. Shape suffixes: N images of the source, L left out, n = N - L kept."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np

from vissl_lite import SOURCES
from vissl_lite.data.batch import Sample
from vissl_lite.data.decode import BrokenImage
from vissl_lite.errors import ConfigError
from vissl_lite.sources._source import Source, ask, existing_file

HEADER = "index\tname"
COMPARED = 100  # names: enough to notice another source, and quick from an archive


@SOURCES.register("without")
class Without(Source):
    """A source without the images of a list, such as duplicates of those it will be tested on.

    Training images that are in a test set as well make its results too good (Mahajan et al. 2018,
    arXiv 1805.00932, section 4.1, report both). `vissl-lite duplicates` writes the list;
    images keep their order, labels, tags and names. Memory: 8 bytes per image left out; what asks
    for all labels, tags or images at once gets a copy of those that are kept.

    Args:
        source: config of a source. The weights of a `mix` are not passed on.
        list: text file with the line "index<TAB>name" and then one image per line: its place in the
            source, counted from 0, and its name there, by which a list for another source is
            noticed.

    Raises:
        ConfigError: a list of another form or for another source, or one that leaves nothing.
    """

    def __init__(self, source: Annotated[Any, SOURCES], list: str):
        self.source = SOURCES.build(source, "without.source")
        index_L, names = read_list(existing_file(list, "without.list"))
        _check(self.source, index_L, names, list)
        self._kept_before_L = index_L - np.arange(len(index_L))
        self.num_classes, self.classes = self.source.num_classes, self.source.classes

    @property
    def index_L(self) -> np.ndarray:
        """int64, rising: the images that are left out."""
        return self._kept_before_L + np.arange(len(self._kept_before_L))

    def __len__(self) -> int:
        return len(self.source) - len(self._kept_before_L)

    def sample(self, index: int) -> Sample:
        return self.source[self.place(index)]

    def place(self, index: int) -> int:
        """Where image `index` is in the source."""
        return index + int(np.searchsorted(self._kept_before_L, index, side="right"))

    def images(self) -> np.ndarray | None:
        held = ask(self.source, "images")
        return None if held is None else np.delete(held, self.index_L, axis=0)

    def all_labels(self) -> np.ndarray | None:
        labels = ask(self.source, "all_labels")
        return None if labels is None else np.delete(labels, self.index_L)

    def all_tags(self) -> tuple[np.ndarray, np.ndarray] | None:
        tags = ask(self.source, "all_tags")
        if tags is None:
            return None
        values, offsets = tags
        length_N = np.diff(offsets)
        kept_N = np.ones(len(length_N), bool)
        kept_N[self.index_L] = False
        kept_offsets = np.concatenate([[0], np.cumsum(length_N[kept_N])])
        return values[np.repeat(kept_N, length_N)], kept_offsets

    def described(self) -> str:
        return f"{len(self._kept_before_L):,} left out of {self.source!r}, "


def read_list(file: Path) -> tuple[np.ndarray, list[str]]:
    """Rising places, int64 [L], and their names.

    Raises:
        ConfigError: the file has another form.
    """
    head, *lines = file.read_text(encoding="utf-8").splitlines() or [""]
    try:
        rows = {int(line.split("\t", 1)[0]): line.split("\t", 1)[1] for line in lines}
    except (ValueError, IndexError):
        head = ""
    if head != HEADER:
        raise ConfigError(
            f"without.list: {file} is no list of images; its lines are an index, a tab and a name,"
            " the first one says: index<TAB>name"
        )
    rows = dict(sorted(rows.items()))
    return np.fromiter(rows, np.int64, len(rows)), list(rows.values())


def write_list(file: Path, rows: dict[int, str]) -> None:
    """Place -> name, for `without`."""
    lines = [f"{index}\t{one_line(name)}" for index, name in sorted(rows.items())]
    file.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")


def one_line(name: str) -> str:
    """A name with spaces for what would begin a line of its own."""
    return " ".join(name.splitlines())


def _check(source: Any, index_L: np.ndarray, names: list[str], path: str) -> None:
    if len(index_L) and not 0 <= index_L[0] <= index_L[-1] < len(source):
        raise ConfigError(f"without.list: {path} has images that {source!r} has not; make it anew")
    if len(index_L) == len(source):
        raise ConfigError(f"without.list: {path} leaves nothing of {source!r}")
    some = np.unique(np.linspace(0, len(index_L) - 1, min(COMPARED, len(index_L))).astype(int))
    for row in some.tolist():
        there = one_line(_name(source, int(index_L[row])))
        if there != names[row]:
            raise ConfigError(
                f"without.list: image {index_L[row]} is {names[row]!r} in {path} and {there!r} in"
                f" {source!r}; the list is for another source, make it anew"
            )


def _name(source: Any, index: int) -> str:
    try:
        return source[index].name
    except BrokenImage as broken:
        return broken.name
