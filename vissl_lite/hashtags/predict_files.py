"""Predictions as a file, written row by row: TSV, JSONL or Parquet by its ending.

TSV      index, image, tag_1, probability_1, ..., tag_K, probability_K
JSONL    {"index": 0, "image": "...", "tags": [...], "probabilities": [...]}
Parquet  index: int64, image: string, tags: list<string>, probabilities: list<float>
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vissl_lite.errors import ConfigError
from vissl_lite.hashtags.predict import Prediction
from vissl_lite.shards.stopped import as_stopped
from vissl_lite.sources._source import shown
from vissl_lite.words import check_file

ROWS = 8192  # of a row group
Add = Callable[[Prediction], object]


def check_out(out: Path) -> None:
    """
    Raises:
        ConfigError: another ending, or no file can be written there.
    """
    if out.suffix.lower() not in WRITERS:
        raise ConfigError(
            f"hashtags predict --out: {out.name!r} ends in none of {', '.join(WRITERS)}"
        )
    check_file(out, "hashtags predict --out")


@contextmanager
def writer(out: Path, k: int) -> Iterator[Add]:
    """A function that adds a row; the file appears, whole, when all went well.

    Raises:
        BuildStopped: the disk is full or cannot be written.
    """
    tmp = out.with_name(f".{out.name}.tmp")
    with as_stopped(out):
        try:
            with WRITERS[out.suffix.lower()](tmp, k) as add:
                yield add
            os.replace(tmp, out)
        finally:
            tmp.unlink(missing_ok=True)


@contextmanager
def _tsv(file: Path, k: int) -> Iterator[Add]:
    columns = [f"{what}_{i}" for i in range(1, k + 1) for what in ("tag", "probability")]
    with file.open("w", encoding="utf-8", newline="\n") as lines:
        lines.write("\t".join(["index", "image", *columns]) + "\n")
        yield lambda row: lines.write("\t".join(_words(row)) + "\n")


def _words(row: Prediction) -> list[str]:
    """Tabs and line ends of names as escapes."""
    pairs = zip(map(shown, row.tags), (f"{p:.6f}" for p in row.probabilities))
    return [str(row.index), shown(row.name), *itertools.chain.from_iterable(pairs)]


@contextmanager
def _jsonl(file: Path, k: int) -> Iterator[Add]:
    def line(row: Prediction) -> str:
        rounded = [round(p, 6) for p in row.probabilities]
        found = {"index": row.index, "image": row.name, "tags": row.tags}
        return json.dumps({**found, "probabilities": rounded}, ensure_ascii=False) + "\n"

    with file.open("w", encoding="utf-8", newline="\n") as lines:
        yield lambda row: lines.write(line(row))


@contextmanager
def _parquet(file: Path, k: int) -> Iterator[Add]:
    columns = {"index": pa.int64(), "image": pa.string(), "tags": pa.list_(pa.string())}
    schema = pa.schema({**columns, "probabilities": pa.list_(pa.float32())})
    waiting: list[Prediction] = []
    with pq.ParquetWriter(file, schema) as table:

        def flush() -> None:
            values = [[r.index, r.name, r.tags, r.probabilities] for r in waiting]
            arrays = [pa.array(c, f.type) for c, f in zip(zip(*values), schema)]
            table.write_batch(pa.record_batch(arrays, schema=schema))
            waiting.clear()

        def add(row: Prediction) -> None:
            waiting.append(row)
            if len(waiting) == ROWS:
                flush()

        yield add
        if waiting:
            flush()


WRITERS = {".tsv": _tsv, ".jsonl": _jsonl, ".parquet": _parquet}
