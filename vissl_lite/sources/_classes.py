"""Class names to class ids, for labels and tags, while an index is being built."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vissl_lite.errors import ConfigError
from vissl_lite.sources._columns import ColumnWriter, ids_writer, write_strings

Target = Literal["labels", "tags"]
CHUNK = 1 << 20


def read_names(path: Path, place: str) -> list[str]:
    """The names of a vocabulary file: one per line, the line number from 0 is the class id."""
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    names = [name for name in names if name]
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise ConfigError(f"{place}: {twice!r} stands twice in {path}; name every class once")
    return names


def split_tags(value: Any, separator: str) -> list[str]:
    """Tags of one image as names, from a list, or a string of them; no '#' in front, lower case.

    A separator of one space stands for any white space.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        value = str(value).split(None if separator == " " else separator)
    names = (str(part).strip().lstrip("#").lower() for part in value)
    return [name for name in names if name]


class TargetWriter:
    """Writes the labels or tags of images as class ids, and the names of the classes.

    Ids are given in order of first appearance and, once all names are known, put in the order of
    the sorted names. Where every name is a whole number, the numbers are the ids and there are no
    names. Where `names` are given, they are the classes: other tags are left out, other labels are
    an error.
    """

    def __init__(self, folder: Path, target: Target | None, names: list[str] | None, place: str):
        self.folder, self.target, self.names, self.place = folder, target, names, place
        self.ids = {name: i for i, name in enumerate(names or [])}
        if target == "labels":
            self.path = folder / "labels.npy"
            self.labels, self.pending = ColumnWriter(self.path, "int32"), []
        elif target == "tags":
            self.path = folder / "tags.values.npy"
            self.tags = ids_writer(folder, "tags")

    def add(self, value: Any, place: str) -> None:
        """Adds one image: its label or the list of its tags, as names; `place` is for messages."""
        if self.target == "labels":
            self.pending.append(self._label(value, place))
            if len(self.pending) >= CHUNK:
                self._flush()
        elif self.target == "tags":
            self.tags.add([i for i in map(self._id, value) if i is not None])

    def finish(self) -> dict[str, Any]:
        """Closes the files, settles the ids and returns the notes that `IndexedSource` reads."""
        if self.target == "labels":
            self._flush()
            self.labels.close()
        elif self.target == "tags":
            self.tags.close()
        else:
            return {"target": None, "num_classes": None, "named": False}
        names = self._settle() if self.names is None else self.names
        if names is not None:
            write_strings(self.folder, "classes", names)
        count = len(names) if names is not None else max(map(int, self.ids), default=-1) + 1
        return {"target": self.target, "num_classes": count, "named": names is not None}

    def _id(self, name: str) -> int | None:
        if self.names is not None:
            return self.ids.get(name)
        return self.ids.setdefault(name, len(self.ids))

    def _label(self, value: Any, place: str) -> int:
        if value is None or value == "":
            raise ConfigError(
                f"{self.place}: {place} has no label; give it one or leave the image out"
            )
        label = self._id(str(value))
        if label is None:
            raise ConfigError(
                f"{self.place}: {place} has label {value!r}, which the vocabulary lacks"
            )
        return label

    def _flush(self) -> None:
        self.labels.extend(self.pending)
        self.pending = []

    def _settle(self) -> list[str] | None:
        if all(map(_is_number, self.ids)):
            _renumber(self.path, self._numbers())
            return None
        names = sorted(self.ids)
        rank = {name: i for i, name in enumerate(names)}
        _renumber(self.path, [rank[name] for name in self.ids])
        return names

    def _numbers(self) -> list[int]:
        numbers = [int(name) for name in self.ids]
        least, most = min(numbers, default=0), max(numbers, default=0)
        if least < 0 or most >= 2**31:
            raise ConfigError(
                f"{self.place}: class ids must lie in [0, 2^31), found {least} to {most};"
                " number the classes from 0 or give them names"
            )
        return numbers


def _is_number(name: str) -> bool:
    """True for '7' and '-1', not for '007', which is a name."""
    digits = name.removeprefix("-")
    return digits.isascii() and digits.isdigit() and str(int(name)) == name


def _renumber(path: Path, new: Iterable[int]) -> None:
    """Replaces each id i in a column file by `new[i]`, a chunk at a time."""
    new = np.asarray(list(new), np.int32)
    values = np.load(path, mmap_mode="r+")
    for start in range(0, len(values), CHUNK):
        values[start : start + CHUNK] = new[values[start : start + CHUNK]]
    values.flush()
