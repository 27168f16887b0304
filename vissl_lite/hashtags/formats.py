"""Chosen columns of CSV, TSV, JSONL, Parquet and Arrow files as batches, in bounded memory."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from vissl_lite.errors import ConfigError
from vissl_lite.hashtags.header import BLOCK, Request, check_columns
from vissl_lite.hashtags.jsonl import read_jsonl
from vissl_lite.sources._arrow import open_arrow

ROWS, BYTES = 1 << 16, 1 << 24  # most that a batch has; a single row may be larger


def batches(file: Path, request: Request) -> Iterator[pa.RecordBatch]:
    """Batches with the columns; CSV gives binary, the others what they hold.

    Rows left out as malformed: of CSV with another number of values than the header, of JSONL that
    are no object or hold something else than text.

    Raises:
        ConfigError: the file is of another kind or broken, or lacks a column.
    """
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise ConfigError(
            f"hashtags build: {file} is none of {', '.join(READERS)}; convert it or rename it"
        )
    try:
        yield from reader(file, request)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(f"hashtags build: {file} cannot be read ({reason})") from error


def _parquet(file: Path, request: Request) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    columns, size, done = request.columns, file.stat().st_size, 0
    with pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False) as opened:
        check_columns(file, columns, opened.schema_arrow.names)
        for group in range(opened.num_row_groups):
            rows = _rows(opened.metadata.row_group(group), columns)
            for batch in opened.iter_batches(rows, [group], columns, use_threads=False):
                done += batch.num_rows
                request.read(size * done // opened.metadata.num_rows)
                yield batch


def _rows(group: Any, columns: list[str]) -> int:
    """How many rows of a row group of Parquet are about BYTES, by their mean."""
    chunks = (group.column(i) for i in range(group.num_columns))
    size = sum(
        each.total_uncompressed_size
        for each in chunks
        if each.path_in_schema.split(".")[0] in columns
    )
    return max(1, min(ROWS, BYTES * group.num_rows // max(size, 1)))


def _arrow(file: Path, request: Request) -> Iterator[pa.RecordBatch]:
    size, done = file.stat().st_size, 0
    with open_arrow(file) as (names, batches):
        check_columns(file, request.columns, names)
        for batch in batches:
            done = min(size, done + batch.nbytes)  # more than that of a compressed file
            request.read(done)
            yield batch.select(request.columns)


def _csv(file: Path, request: Request) -> Iterator[pa.RecordBatch]:
    from pyarrow import csv as arrow_csv

    def skip(row: Any) -> str:
        request.malformed()
        return "skip"

    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    with open(file, encoding="utf-8-sig", errors="replace", newline="") as lines:
        check_columns(file, request.columns, next(csv.reader(lines, delimiter=delimiter), []))
    with pa.OSFile(str(file)) as data:
        for batch in arrow_csv.open_csv(
            data,
            arrow_csv.ReadOptions(block_size=BLOCK, use_threads=False),
            arrow_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
            ),
            arrow_csv.ConvertOptions(
                check_utf8=False,
                column_types=dict.fromkeys(request.columns, pa.binary()),
                include_columns=request.columns,
            ),
        ):
            request.read(data.tell())
            yield batch


READERS = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
}
