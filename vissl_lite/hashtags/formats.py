"""Chosen columns of CSV, TSV, JSONL, Parquet and Arrow files as batches, in bounded memory."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.sources._arrow import open_arrow

ROWS, BYTES = 1 << 16, 1 << 24  # most that a batch has; a single row may be larger
BLOCK = 1 << 24  # bytes of text that are parsed at once; the longest row of CSV


def batches(
    file: Path, columns: Sequence[str], skipped: Callable[[], object]
) -> Iterator[pa.RecordBatch]:
    """Batches with `columns`; CSV gives binary, the others what they hold.

    Args:
        skipped: is called for every line of CSV with another number of values than the header.

    Raises:
        ConfigError: the file is of another kind or broken, or lacks a column.
    """
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise ConfigError(
            f"hashtags build: {file} is none of {', '.join(READERS)}; convert it or rename it"
        )
    try:
        yield from reader(file, columns, skipped)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(f"hashtags build: {file} cannot be read ({reason})") from error


def _parquet(file: Path, columns: Sequence[str], _: Any) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False) as opened:
        _check(file, columns, opened.schema_arrow.names)
        for group in range(opened.num_row_groups):
            rows = _rows(opened.metadata.row_group(group), columns)
            yield from opened.iter_batches(rows, [group], list(columns), use_threads=False)


def _rows(group: Any, columns: Sequence[str]) -> int:
    """How many rows of a row group of Parquet are about BYTES, by their mean."""
    chunks = (group.column(i) for i in range(group.num_columns))
    size = sum(
        each.total_uncompressed_size
        for each in chunks
        if each.path_in_schema.split(".")[0] in columns
    )
    return max(1, min(ROWS, BYTES * group.num_rows // max(size, 1)))


def _arrow(file: Path, columns: Sequence[str], _: Any) -> Iterator[pa.RecordBatch]:
    with open_arrow(file) as (names, batches):
        _check(file, columns, names)
        for batch in batches:
            yield batch.select(list(columns))


def _csv(
    file: Path, columns: Sequence[str], skipped: Callable[[], object]
) -> Iterator[pa.RecordBatch]:
    from pyarrow import csv as arrow_csv

    def skip(row: Any) -> str:
        skipped()
        return "skip"

    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    with open(file, encoding="utf-8-sig", errors="replace", newline="") as lines:
        _check(file, columns, next(csv.reader(lines, delimiter=delimiter), []))
    types = {name: pa.binary() for name in columns}
    yield from arrow_csv.open_csv(
        file,
        arrow_csv.ReadOptions(block_size=BLOCK, use_threads=False),
        arrow_csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
        ),
        arrow_csv.ConvertOptions(
            check_utf8=False, column_types=types, include_columns=list(columns)
        ),
    )


def _jsonl(file: Path, columns: Sequence[str], _: Any) -> Iterator[pa.RecordBatch]:
    from pyarrow import json as arrow_json

    with open(file, "rb") as lines:
        schema, number = _schema(file, columns, lines), 1
        lines.seek(0)
        while block := lines.read(BLOCK) + lines.readline():
            try:
                yield from arrow_json.read_json(
                    io.BytesIO(block),
                    arrow_json.ReadOptions(block_size=len(block) + 1, use_threads=False),
                    arrow_json.ParseOptions(schema, unexpected_field_behavior="ignore"),
                ).to_batches()
            except pa.ArrowInvalid as error:
                raise ConfigError(_wrong_line(file, block, number, error)) from error
            number += block.count(b"\n")


def _schema(file: Path, columns: Sequence[str], lines: Any) -> pa.Schema:
    """Types of the columns by the first row that is not empty."""
    row = _object(next((line for line in lines if line.strip()), b"{}"))
    if row is None:
        raise ConfigError(
            f"hashtags build: {file} does not begin with a JSON object; needs one per line"
        )
    _check(file, columns, row)
    return pa.schema([(name, _json_type(row[name])) for name in columns])


def _json_type(value: Any) -> pa.DataType:
    if isinstance(value, list):
        return pa.list_(pa.string())
    return pa.int64() if isinstance(value, int) else pa.string()


def _object(line: bytes) -> dict | None:
    try:
        row = json.loads(line.decode(errors="replace"))
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _wrong_line(file: Path, block: bytes, first: int, error: Exception) -> str:
    """Which line it was."""
    for number, line in enumerate(block.split(b"\n"), first):
        if line.strip() and _object(line) is None:
            return f"hashtags build: {file}, line {number} is no JSON object; needs one per line"
    reason = str(error).split("\n")[0]
    return f"hashtags build: {file}, line {first} or after it, cannot be read ({reason})"


def _check(file: Path, columns: Sequence[str], header: Any) -> None:
    for name in columns:
        if name not in header:
            raise ConfigError(
                f"hashtags build: {file} has no column {name!r}{did_you_mean(name, header) or ';'}"
                f" name columns with --image-column, --caption-column, --tags-column; there are:"
                f" {', '.join(header)}"
            )


READERS = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
}
