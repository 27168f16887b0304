"""What is done of an extraction: a line per block, written after its rows.

Every process of every start has a file of its own, done-START-RANK.jsonl: nobody cuts or continues
what a killed process has left. A line counts if it is whole and if the rows that it speaks of have
its checksum, since they may have been lost with the machine's memory.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vissl_lite.extract.blocks import Block
from vissl_lite.extract.folder import Folder
from vissl_lite.resumable import as_line, whole_lines, write_all


class Journal:
    """Writes rows and lines of one process.

    Args:
        start: how often the extraction has been started.
    """

    def __init__(self, folder: Folder, start: int, rank: int):
        self.folder = folder
        path = folder.path / f"done-{start}-{rank}.jsonl"
        self._file = path.open("xb", buffering=0)

    def add(self, block: Block, rows: dict[str, bytes]) -> None:
        """
        Args:
            rows: of every layer.
        """
        for layer, content in rows.items():
            self.folder.write(layer, block.number, content)
        line = {
            "block": block.number,
            "crc": {layer: zlib.crc32(content) for layer, content in rows.items()},
            "names": block.names,
            "labels": block.labels,
            "broken": block.broken,
        }
        write_all(self._file, as_line(line))

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class Done:
    """The lines of all journals.

    Attributes:
        start: how often the extraction has been started before.
        undone: blocks that are not there, or not whole, in order.
    """

    def __init__(self, folder: Folder):
        self.files = journals(folder)
        self.start = max((int(file.name.split("-")[1]) for file in self.files), default=0)
        self._place: dict[int, tuple[Path, int]] = {}
        for file in self.files:
            for line, offset, _ in whole_lines(file):
                if line["block"] not in self._place and _is_whole(folder, line):
                    self._place[line["block"]] = file, offset
        self.undone = [block for block in range(len(folder)) if block not in self._place]

    def in_order(self) -> Iterator[dict[str, Any]]:
        """The line of every block, in the order of the source."""
        assert not self.undone
        with ExitStack() as stack:
            files = {path: stack.enter_context(path.open("rb")) for path in self.files}
            for block in range(len(self._place)):
                path, offset = self._place[block]
                files[path].seek(offset)
                yield json.loads(files[path].readline())


def journals(folder: Folder) -> list[Path]:
    return sorted(folder.path.glob("done-*-*.jsonl"))


def _is_whole(folder: Folder, line: dict[str, Any]) -> bool:
    return all(
        zlib.crc32(folder.read(layer, line["block"])) == crc for layer, crc in line["crc"].items()
    )
