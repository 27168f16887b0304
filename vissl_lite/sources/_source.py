"""What the sources of this folder share. A source of a third party needs none of it."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from vissl_lite.data.batch import Sample
from vissl_lite.errors import ConfigError, MissingPath, did_you_mean
from vissl_lite.plugins import path_variables
from vissl_lite.sources._columns import Column, Ragged, Strings


class Source:
    """N images with, perhaps, a label or tags each. Subclasses define `sample(index)`.

    Attributes:
        num_classes: number of classes that labels or tags come from, or None without either.
        classes: their names in the order of their ids, or None.
    """

    num_classes: int | None = None
    classes: list[str] | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def sample(self, index: int) -> Sample:
        """The image at `index`, which lies in [0, N)."""
        raise NotImplementedError

    def images(self) -> np.ndarray | None:
        """All images at once, uint8 [N, H, W] or [N, H, W, 3], of sources that have them so."""
        return None

    def all_labels(self) -> np.ndarray | None:
        """Class id of every image, [N], without opening one; None without labels."""
        return None

    def all_tags(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Tags of every image, `values[offsets[i]:offsets[i + 1]]`; None without tags."""
        return None

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"{self!r} has no image {index}")
        return self.sample(int(index))

    def __repr__(self) -> str:
        classes = "" if self.num_classes is None else f", {self.num_classes:,} classes"
        return f"{type(self).__name__}({self.described()}{len(self):,} images{classes})"

    def described(self) -> str:
        """What the repr says in front of the numbers."""
        path = getattr(self, "path", None)
        return "" if path is None else f"{str(path)!r}, "


class IndexedSource(Source):
    """A source whose labels, tags and class names are columns of an index (`_index.py`).

    Subclasses define `image(index) -> (image, name)`.
    """

    def __init__(self, folder: Path, notes: dict[str, Any]):
        self.num_classes = notes["num_classes"]
        self._labels = Column(folder / "labels.npy") if notes["target"] == "labels" else None
        self._tags = Ragged(folder, "tags") if notes["target"] == "tags" else None
        self._classes = Strings(folder, "classes") if notes["named"] else None

    @property
    def classes(self) -> list[str] | None:
        """Read from the index at every call: a million names do not stay in each worker."""
        names = self._classes
        return None if names is None else [names[i] for i in range(len(names))]

    def image(self, index: int) -> tuple[Any, str]:
        raise NotImplementedError

    def sample(self, index: int) -> Sample:
        image, name = self.image(index)
        label = None if self._labels is None else int(self._labels[index])
        tags = None if self._tags is None else self._tags[index].tolist()
        return Sample(image, label, tags, shown(name))

    def all_labels(self) -> np.ndarray | None:
        return None if self._labels is None else self._labels.array()

    def all_tags(self) -> tuple[np.ndarray, np.ndarray] | None:
        return (
            None if self._tags is None else (self._tags.values.array(), self._tags.offsets.array())
        )


def ask(source: Any, method: str) -> Any:
    """The answer of a method that a source of a third party need not have, else None."""
    return getattr(source, method)() if hasattr(source, method) else None


def shown(name: str) -> str:
    """`name` with what a terminal cannot or should not print written as escapes."""
    return name if name.isprintable() else ascii(name)[1:-1]


def check_local(path: str, place: str) -> None:
    """
    Raises:
        ConfigError: `path` is an address.
    """
    if "://" in path:
        raise ConfigError(
            f"{place}: {shown(path)!r} is an address, and only files of this machine are read; copy"
            " them here, or pack the images where they lie (vissl-lite shards build), copy the"
            " shards there and read them with data/source=packed"
        )


def existing(path: str, place: str) -> Path:
    """`path` as an absolute path that exists.

    Raises:
        MissingPath: it does not; the message names the environment variable that a recipe takes it
            from, or the nearest folder that exists.
        ConfigError: it is an address.
    """
    check_local(path, place)
    wanted = Path(path).expanduser().absolute()
    if os.path.exists(wanted):
        return wanted
    if variable := _unset_variable(path):
        raise MissingPath(
            f"{place}: {shown(str(wanted))!r} does not exist; set ${variable}, or this key"
        )
    nearest = next(parent for parent in wanted.parents if os.path.exists(parent))
    missing = wanted.relative_to(nearest).parts[0]
    siblings = os.listdir(nearest) if nearest.is_dir() else []
    raise MissingPath(
        f"{place}: {shown(str(wanted))!r} does not exist; the nearest that does is "
        f"'{nearest}'{did_you_mean(missing, siblings)}"
    )


def _unset_variable(path: str) -> str | None:
    """The environment variable that would be the root of `path`, were it set."""
    return next(
        (
            variable
            for variable, unset in path_variables().items()
            if variable not in os.environ
            and Path(path).is_relative_to(unset)
            and not os.path.exists(unset)
        ),
        None,
    )


def existing_file(path: str, place: str) -> Path:
    """As `existing`, and a file."""
    if (found := existing(path, place)).is_file():
        return found
    raise ConfigError(f"{place}: {str(found)!r} is a folder; name a file")
