"""Counts of more tags than memory holds: sorted runs on disk, merged in the end."""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import groupby
from operator import itemgetter
from pathlib import Path

LIMIT = 1_000_000  # distinct tags in memory, about 150 MB


class TagCounts:
    """Adds up counts of tags. In memory are at most `limit` distinct tags and those of one batch.

    Args:
        folder: for the runs, lines "tag TAB count" in the order of the tags.
    """

    def __init__(self, folder: Path, limit: int = LIMIT):
        self.folder, self.limit = folder, limit
        self.runs: list[Path] = []
        self._counts: Counter[str] = Counter()

    def add(self, tags: Iterable[str], counts: Iterable[int]) -> None:
        mine = self._counts
        for tag, count in zip(tags, counts):
            mine[tag] += count
        if len(mine) > self.limit:
            self._write_run()

    def sorted(self) -> Iterator[tuple[str, int]]:
        """Every tag with its count, in the order of the tags."""
        with ExitStack() as stack:
            files = [stack.enter_context(open(run, encoding="utf-8")) for run in self.runs]
            runs = [*map(_read, files), iter(sorted(self._counts.items()))]
            for tag, group in groupby(heapq.merge(*runs), key=itemgetter(0)):
                yield tag, sum(count for _, count in group)

    def _write_run(self) -> None:
        run = self.folder / f"run-{len(self.runs)}.tsv"
        with open(run, "w", encoding="utf-8") as file:
            file.writelines(f"{tag}\t{count}\n" for tag, count in sorted(self._counts.items()))
        self.runs.append(run)
        self._counts.clear()


def _read(lines: Iterable[str]) -> Iterator[tuple[str, int]]:
    for line in lines:
        tag, _, count = line.partition("\t")
        yield tag, int(count)
