"""A part of a source. Shape suffixes: N images of the source, n of the subset, C classes."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Annotated, Any

import numpy as np

from vissl_lite import SOURCES
from vissl_lite.data.batch import Sample
from vissl_lite.data.decode import BrokenImage
from vissl_lite.data.random import generator
from vissl_lite.errors import ConfigError
from vissl_lite.progress import counter
from vissl_lite.sources._source import Source, ask, existing_file

STREAM = 16  # of `generator`
UNLABELLED = -1


@SOURCES.register("subset")
class Subset(Source):
    """A stratified share of a source's labelled images, k images per class, or those of a list.

    The choice depends on the seed and the source alone, not on processes. A smaller share is part
    of a larger one with the same seed. Images keep the order of the source and their labels, tags
    and names. Labels come from the source's index; where it has none, every image is asked for.
    A list always asks for every image, and `packed` and `tar_shards` read it for that. Memory: 8
    bytes per image chosen; all tags asked for at once are a copy.

    Args:
        source: config of a source. The weights of a `mix` are not passed on.
        share: of the images of each class, rounded, and one at least.
        per_class: images of each class; of a class with fewer, all.
        list: text file of names as the source gives them, or of file names without folders, such as
            SimCLR's 1percent.txt (Chen et al. 2020, arXiv 2002.05709, section 4.4).
        seed: of the choice.
        rest: take the other labelled images instead: what is held out.

    Attributes:
        index_n: int64, rising: where its images are in the source.

    Raises:
        ConfigError: not exactly one of `share`, `per_class` and `list`, a value out of range, a
            source without labels, a listed name that fits no image or several, no image left.
    """

    def __init__(
        self,
        source: Annotated[Any, SOURCES],
        share: float | None = None,
        per_class: int | None = None,
        list: str | None = None,
        seed: int = 0,
        rest: bool = False,
    ):
        _check(share, per_class, list, rest)
        self.source = SOURCES.build(source, "subset.source")
        if list is not None:
            self.index_n = listed(self.source, list)
        else:
            label_N = labels_of(self.source)
            self.index_n = stratified(label_N, _counts(share, per_class), seed, rest)
        if not len(self.index_n):
            raise ConfigError(
                f"subset: nothing is left of {self.source!r}; take another share, or another list"
            )
        self.num_classes, self.classes = self.source.num_classes, self.source.classes

    def __len__(self) -> int:
        return len(self.index_n)

    def sample(self, index: int) -> Sample:
        return self.source[int(self.index_n[index])]

    def images(self) -> np.ndarray | None:
        held = ask(self.source, "images")
        return None if held is None else held[self.index_n]

    def all_labels(self) -> np.ndarray | None:
        labels = ask(self.source, "all_labels")
        return None if labels is None else labels[self.index_n]

    def all_tags(self) -> tuple[np.ndarray, np.ndarray] | None:
        tags = ask(self.source, "all_tags")
        if tags is None:
            return None
        values, offsets = tags
        length_n = offsets[self.index_n + 1] - offsets[self.index_n]
        ends_n = np.cumsum(length_n)
        shift_T = np.repeat(offsets[self.index_n] - (ends_n - length_n), length_n)
        return values[np.arange(len(shift_T)) + shift_T], np.concatenate([[0], ends_n])

    def names(self) -> Iterator[str]:
        """What its images are called, in order."""
        return (name_of(self.source, int(i)) for i in self.index_n)

    def described(self) -> str:
        return f"of {self.source!r}, "


def stratified(
    label_N: np.ndarray, count: Callable[[np.ndarray], np.ndarray], seed: int, rest: bool = False
) -> np.ndarray:
    """Rising indices of `count` random images of each class, or of all others with a label.

        u_N uniform; an image is chosen if it is among the first count(size_C) of its class by u

    Args:
        label_N: class ids, -1 where there is none.
        count: number of images of each class [C] -> how many of them.
    """
    labelled_M = np.flatnonzero(label_N > UNLABELLED)
    label_M = label_N[labelled_M]
    u_M = generator(seed, 0, 0, 0, STREAM).random(len(label_N))[labelled_M]
    order_M = np.lexsort((u_M, label_M))  # class by class, in random order
    size_C = np.bincount(label_M)
    place_M = np.arange(len(order_M)) - np.repeat(size_C.cumsum() - size_C, size_C)
    chosen_M = place_M < np.repeat(count(size_C), size_C)
    return np.sort(labelled_M[order_M[chosen_M != rest]])


def labels_of(source: Any) -> np.ndarray:
    """Class id of every image, -1 where there is none.

    Raises:
        ConfigError: the source has no labels.
    """
    labels = ask(source, "all_labels")
    if labels is None and source.num_classes is not None:
        with counter("reading labels", len(source)) as progress:
            labels = np.empty(len(source), np.int64)
            for i in range(len(source)):
                labels[i] = _label(source, i)
                progress.add()
    if labels is None or np.max(labels) == UNLABELLED:
        raise ConfigError(
            f"subset.source: {source!r} has no labels to choose by; name the images in subset.list"
        )
    return np.asarray(labels)


def listed(source: Any, path: str) -> np.ndarray:
    """Rising indices of the images whose names, whole or without folders, stand in a text file."""
    lines = existing_file(path, "subset.list").read_text(encoding="utf-8").splitlines()
    wanted = {line.strip() for line in lines} - {""}
    index, found = [], Counter()
    with counter(f"looking for the images of {path}", len(source)) as progress:
        for i in range(len(source)):
            name = name_of(source, i)
            if match := {name, PurePath(name).name} & wanted:
                index.append(i)
                found.update(match)
            progress.add()
    _check_found(path, wanted, found)
    return np.array(index, np.int64)


def name_of(source: Any, index: int) -> str:
    """What messages call an image, also one that cannot be read."""
    try:
        return source[index].name or f"image {index}"
    except BrokenImage as broken:
        return broken.name


def _label(source: Any, index: int) -> int:
    """Of an image that has none or cannot be read, -1."""
    try:
        label = source[index].label
    except BrokenImage:
        return UNLABELLED
    return UNLABELLED if label is None else label


def _counts(share: float | None, per_class: int | None) -> Callable[[np.ndarray], np.ndarray]:
    if share is None:
        return lambda size_C: np.full_like(size_C, per_class)
    return lambda size_C: np.maximum(np.rint(share * size_C), 1)


def _check(share: float | None, per_class: int | None, path: str | None, rest: bool) -> None:
    given = {"share": share, "per_class": per_class, "list": path}
    if sum(value is not None for value in given.values()) != 1:
        names = [key for key, value in given.items() if value is not None]
        raise ConfigError(
            f"subset: {' and '.join(names) or 'none'} of share, per_class and list; give exactly"
            " one"
        )
    if share is not None and not 0 < share <= 1:
        raise ConfigError(f"subset.share: is {share:g}; needs more than 0 and at most 1")
    if per_class is not None and per_class < 1:
        raise ConfigError(f"subset.per_class: is {per_class}; needs at least 1")
    if path is not None and rest:
        raise ConfigError("subset.rest: belongs to share and per_class; leave it out with a list")


def _check_found(path: str, wanted: set[str], found: Counter) -> None:
    if missing := sorted(wanted - found.keys()):
        raise ConfigError(
            f"subset.list: {len(missing):,} of {len(wanted):,} names in {path} fit no image, such"
            f" as {missing[0]!r}; write names as the source gives them, or file names"
        )
    if twice := sorted(name for name, times in found.items() if times > 1):
        raise ConfigError(
            f"subset.list: {twice[0]!r} fits {found[twice[0]]} images; write it with its folders,"
            " as the source names it"
        )
