"""Rows of CSV, JSONL, Parquet and Arrow files, one after the other, in bounded memory."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.sources._arrow import open_arrow

BATCH = 256  # rows of Parquet and Arrow held at once: tens of megabytes when they hold images


def read_rows(file: Path, columns: list[str]) -> Iterator[tuple]:
    """The values of `columns`, a tuple per row. CSV gives strings, the others what they hold.

    Raises:
        ConfigError: the file is of another kind or broken, or lacks a column.
    """
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise ConfigError(f"table: {file} is none of {', '.join(READERS)}; convert it or rename it")
    return reader(file, columns)


def _csv(file: Path, columns: list[str]) -> Iterator[tuple]:
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    with open(file, newline="", encoding="utf-8-sig") as stream:
        reader = csv.reader(stream, delimiter=delimiter)
        try:
            header = next(reader, [])
            _check(file, columns, header)
            places = [header.index(column) for column in columns]
            for row in filter(None, reader):
                yield tuple(row[place] for place in places)
        except (csv.Error, IndexError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"table: {file}, line {reader.line_num} cannot be read ({error}); every line needs"
                f" {len(header)} values in UTF-8"
            ) from error


def _jsonl(file: Path, columns: list[str]) -> Iterator[tuple]:
    with open(file, "rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ConfigError(
                    f"table: {file}, line {number} is no JSON ({error}); needs one object per line"
                ) from error
            if not isinstance(row, dict):
                raise ConfigError(
                    f"table: {file}, line {number} is no JSON object; needs one per line"
                )
            _check(f"{file}, line {number}", columns, row)
            yield tuple(row[column] for column in columns)


def _parquet(file: Path, columns: list[str]) -> Iterator[tuple]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        _check(file, columns, table.schema_arrow.names)
        for batch in table.iter_batches(BATCH, columns=columns, use_threads=False):
            yield from zip(*(batch.column(column).to_pylist() for column in columns))
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"table: {file} cannot be read as Parquet ({error})") from error


def _arrow(file: Path, columns: list[str]) -> Iterator[tuple]:
    import pyarrow as pa

    try:
        with open_arrow(file) as (names, batches):
            _check(file, columns, names)
            for batch in batches:
                for start in range(0, batch.num_rows, BATCH):
                    part = batch.slice(start, BATCH)
                    yield from zip(*(part.column(column).to_pylist() for column in columns))
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"table: {file} cannot be read as Arrow ({error})") from error


def _check(where: Any, columns: list[str], header: Any) -> None:
    for column in columns:
        if column not in header:
            raise ConfigError(
                f"table: {where} has no column {column!r}{did_you_mean(column, header) or ';'}"
                f" columns: {', '.join(header)}"
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
