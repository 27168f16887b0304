"""Images with the numbers of their tags, on disk until it is known what the classes are.

Every process numbers the tags as it meets them, and begins anew when it has met too many. So a
number means a tag in one dictionary, and dictionaries lie on disk as well:

    images.arrow   image, tags: list<int32>, the numbers; a batch of one dictionary after the other
    0.txt, 1.txt   dictionaries: the tag of number i in line i

Legend: N images, T pairs (image, tag), each once, D tags of a dictionary.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from vissl_lite.hashtags.counts import TagCounts
from vissl_lite.hashtags.passes import Found
from vissl_lite.hashtags.text import pairs

SCHEMA = pa.schema([("image", pa.large_string()), ("tags", pa.list_(pa.int32()))])
OPEN = 64  # dictionaries whose classes are in memory, 1 MB each


@dataclass
class _Dictionary:
    """One that a process adds to."""

    number: int
    generation: int
    images_D: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


class Spill:
    """Written once with `add` and `close`, then read once with `classes`.

    Attributes:
        counts: number of images of each tag; complete after `close`.
    """

    def __init__(self, folder: Path):
        folder.mkdir()
        self.folder, self.counts = folder, TagCounts(folder)
        self._number_of: list[int] = []  # batch -> dictionary
        self._growing: dict[int, _Dictionary] = {}  # by process
        self._dictionaries = 0
        options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
        self._writer = pa.ipc.new_stream(str(folder / "images.arrow"), SCHEMA, options=options)

    def add(self, images: pa.Array, found: Found) -> None:
        """The next batch."""
        mine = self._dictionary(*found.dictionary)
        with open(self._file(mine.number), "a", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{tag}\n" for tag in found.new)
        images_D = np.bincount(found.tags_T, minlength=len(mine.images_D) + len(found.new))
        images_D[: len(mine.images_D)] += mine.images_D
        mine.images_D = images_D
        self._number_of.append(mine.number)
        offsets = np.append(0, np.cumsum(found.counts_N)).astype(np.int32)
        tags = pa.ListArray.from_arrays(pa.array(offsets), pa.array(found.tags_T))
        self._writer.write_batch(pa.record_batch([images, tags], schema=SCHEMA))

    def close(self) -> None:
        for mine in self._growing.values():
            self._count(mine)
        self._writer.close()

    def classes(
        self, class_of: Callable[[str], int | None]
    ) -> Iterator[tuple[pa.Array, np.ndarray, np.ndarray]]:
        """Images, number of classes [N] of each, and the ascending class ids of all of them."""

        @lru_cache(OPEN)
        def classes_D(number: int) -> np.ndarray:
            found = (class_of(tag) for tag in self._tags(number))
            return np.array([-1 if i is None else i for i in found], np.int32)

        with pa.OSFile(str(self.folder / "images.arrow")) as file, pa.ipc.open_stream(file) as read:
            for number, batch in zip(self._number_of, read):
                images, tags = batch.columns
                rows_T = np.repeat(np.arange(len(tags)), np.diff(tags.offsets.to_numpy()))
                rows, ids = pairs(rows_T, classes_D(number)[tags.values.to_numpy()])
                yield images, np.bincount(rows, minlength=len(tags)), ids.astype(np.int32)

    def _dictionary(self, process: int, generation: int) -> _Dictionary:
        mine = self._growing.get(process)
        if mine is None or mine.generation != generation:
            if mine is not None:
                self._count(mine)
            mine = self._growing[process] = _Dictionary(self._dictionaries, generation)
            self._dictionaries += 1
        return mine

    def _count(self, mine: _Dictionary) -> None:
        self.counts.add(self._tags(mine.number), mine.images_D.tolist())

    def _tags(self, number: int) -> Iterator[str]:
        with open(self._file(number), encoding="utf-8", newline="\n") as lines:
            yield from (line.rstrip("\n") for line in lines)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number}.txt"
