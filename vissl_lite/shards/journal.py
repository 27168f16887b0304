"""Shards while they are being built: data files, and a journal of what is in them.

    building.jsonl    source and settings; then a line per chunk, written after its images
    data-*.bin        images; after a kill perhaps more than the journal knows, which is cut off

One process writes, in the order of the source, so the bytes do not depend on the number of workers.
What the journal lists is verified by checksum before a killed build goes on: the end of a file may
have been lost with the machine's memory.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vissl_lite.resumable import as_line, check_same, lock, whole_lines, write_all
from vissl_lite.shards.convert import Chunk
from vissl_lite.sources._columns import File
from vissl_lite.sources._packed import JOURNAL, data_name


@dataclass
class State:
    """How far a build has come.

    Attributes:
        next: first index of the source that is not done.
        data: (size, CRC-32) of every data file; the last one is being written.
        labels, tags: whether any image has one.
    """

    next: int = 0
    images: int = 0
    broken: int = 0
    labels: bool = False
    tags: bool = False
    data: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])

    def after(self, record: dict[str, Any], contents: list[bytes]) -> "State":
        """The state when the images of a chunk are written where its record says."""
        data = self.data.copy()
        for (number, *_), content in zip(record["places"], contents):
            data += [(0, 0)] * (number + 1 - len(data))
            size, crc = data[number]
            data[number] = (size + len(content), zlib.crc32(content, crc))
        return State(
            record["stop"],
            self.images + len(contents),
            self.broken + len(record["broken"]),
            self.labels or any(label is not None for label in record["labels"]),
            self.tags or any(tags is not None for tags in record["tags"]),
            data,
        )


class Journal:
    """The files of an unfinished build, locked against other builders.

    Args:
        header: source and settings; a build with others does not go on in this folder.

    Raises:
        ConfigError: another build is in this folder, or at work in it.
    """

    def __init__(self, folder: Path, header: dict[str, Any], shard_size: int):
        self.folder, self.shard_size = folder, shard_size
        self.state = State()
        self._file = open(folder / JOURNAL, "a+b", buffering=0)  # noqa: SIM115
        try:
            self._lock()
            self._begin(header)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def _lock(self) -> None:
        lock(
            self._file,
            f"shards build: {self.folder} is being built by another process; wait for it, or give"
            " another folder",
        )

    def _begin(self, header: dict[str, Any]) -> None:
        first = next(self._lines(), None)
        if first is None:  # new, or killed within the first line
            self._cut(0)
            self._write(header)
        else:
            check_header(header, first[0], self.folder)

    def resume(self, seen: Callable[[int], object]) -> None:
        """Verifies what is there and cuts off what is not known or not whole.

        Args:
            seen: is told how many images of the source each chunk stands for.
        """
        lines = self._lines()
        _, _, good = next(lines)
        for record, _, end in lines:
            contents = self._contents(record)
            if contents is None:
                break
            seen(record["stop"] - self.state.next)
            self.state, good = self.state.after(record, contents), end
        self._cut(good)
        self._cut_data()

    def append(self, chunk: Chunk) -> None:
        """Writes the images of the next chunk, then its line."""
        assert chunk.start == self.state.next
        places = self._places(chunk)
        record = {
            "stop": chunk.stop,
            "places": places,
            "names": chunk.names,
            "labels": chunk.labels,
            "tags": chunk.tags,
            "broken": chunk.broken,
        }
        for number in sorted({place[0] for place in places}):
            mine = [c for c, place in zip(chunk.contents, places) if place[0] == number]
            with open(self.folder / data_name(number), "ab", buffering=0) as file:
                write_all(file, b"".join(mine))
        self._write(record)
        self.state = self.state.after(record, chunk.contents)

    def records(self) -> Iterator[dict[str, Any]]:
        """What is known of each chunk, in order."""
        lines = self._lines()
        next(lines)
        return (record for record, _, _ in lines)

    def _places(self, chunk: Chunk) -> list[list[int]]:
        """[data file, offset, size, CRC-32, width, height] of each image."""
        number, offset = len(self.state.data) - 1, self.state.data[-1][0]
        places = []
        for content, (width, height) in zip(chunk.contents, chunk.sizes):
            size = len(content)
            if offset and offset + size > self.shard_size:
                number, offset = number + 1, 0
            places.append([number, offset, size, zlib.crc32(content), width, height])
            offset += size
        return places

    def _contents(self, record: dict[str, Any]) -> list[bytes] | None:
        """The images of a chunk as they are in the files; None if one is not whole."""
        contents, files = [], {}
        for number, offset, size, crc, *_ in record["places"]:
            file = files.setdefault(number, File(self.folder / data_name(number)))
            with suppress(FileNotFoundError):
                contents.append(file.read(offset, size))
                if len(contents[-1]) == size and zlib.crc32(contents[-1]) == crc:
                    continue
            return None
        return contents

    def _lines(self) -> Iterator[tuple[dict[str, Any], int, int]]:
        return whole_lines(self._file.name)

    def _write(self, record: dict[str, Any]) -> None:
        write_all(self._file, as_line(record))

    def _cut(self, size: int) -> None:
        self._file.truncate(size)

    def _cut_data(self) -> None:
        for number, (size, _) in enumerate(self.state.data):
            with open(self.folder / data_name(number), "ab") as file:
                file.truncate(size)
        number = len(self.state.data)
        while (surplus := self.folder / data_name(number)).exists():
            surplus.unlink()
            number += 1


def check_header(header: dict[str, Any], there: dict[str, Any], folder: Path) -> None:
    """
    Raises:
        ConfigError: the folder holds shards of another source, or built with other settings.
    """
    other = f"shards build: {folder} holds shards of something else"
    check_same(header, there, other, "give another folder with --out")
