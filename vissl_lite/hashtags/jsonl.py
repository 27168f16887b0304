"""Chosen columns of JSON objects, one per line.

pyarrow parses a block of lines at once. What it refuses, for another type in one line, a lone
surrogate or a truncated line, is halved, in the end parsed line by line; only lines without a row
are lost.
"""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vissl_lite.errors import ConfigError
from vissl_lite.hashtags.header import BLOCK, SEPARATORS, Request, check_columns

BOM = b"\xef\xbb\xbf"
PIECE = 1 << 20  # bytes that are not halved again
NO_OBJECT = "is no JSON object; needs one per line"
LISTS = pa.list_(pa.large_binary())


def read_jsonl(file: Path, request: Request) -> Iterator[pa.RecordBatch]:
    """Batches of text, and perhaps lists of text as tags; a key that a line lacks is null.

    Raises:
        ConfigError: no line of the first block has one of the columns, or none can be read.
    """
    types: dict[str, pa.DataType] = {}
    with open(file, "rb") as lines:
        lines.seek(len(BOM) if lines.read(len(BOM)) == BOM else 0)
        while block := lines.read(BLOCK) + lines.readline():
            request.read(lines.tell())
            types = types or _first_types(file, block, request)
            if not types:
                continue  # empty lines
            yield from _parsed(block, types, request)


def _parsed(
    block: bytes, types: dict[str, pa.DataType], request: Request
) -> Iterator[pa.RecordBatch]:
    """At once, else in two halves, of which one may go well; `types` follow what is found."""
    middle = block.find(b"\n", len(block) // 2) + 1
    if (batches := _at_once(block, types)) is not None:
        yield from batches
    elif len(block) > PIECE and 0 < middle < len(block):
        yield from _parsed(block[:middle], types, request)
        yield from _parsed(block[middle:], types, request)
    else:
        yield _line_by_line(block, request)
        types |= _types(block, request)[0]


def _first_types(file: Path, block: bytes, request: Request) -> dict[str, pa.DataType]:
    """Of all columns; a column without a value in the block is text, that of tags lists."""
    types, keys = _types(block, request)
    if keys:
        check_columns(file, request.columns, keys)
    if not any(_rows(block, request, lambda: None)):
        _refuse(file, block, request)
        return {}
    unknown = {name: pa.string() for name in request.columns}
    if request.tags:
        unknown[request.tags] = pa.list_(pa.string())
    return unknown | types


def _types(block: bytes, request: Request) -> tuple[dict[str, pa.DataType], dict[str, None]]:
    """Types by the first values that are not null, and the keys of the lines up to these."""
    types, keys = {}, {}
    for line in io.BytesIO(block):
        try:
            row = _object(line)
        except ValueError:
            continue
        keys |= dict.fromkeys(row)
        for name in request.columns:
            if name not in types and row.get(name) is not None:
                types[name] = _type(row[name])
        if len(types) == len(request.columns):
            break
    return types, keys


def _type(value: Any) -> pa.DataType:
    if isinstance(value, list):
        return pa.list_(pa.string())
    return pa.int64() if isinstance(value, Integer) else pa.string()


def _at_once(block: bytes, types: dict[str, pa.DataType]) -> list[pa.RecordBatch] | None:
    """By pyarrow, whole numbers as text; None if it refuses the block."""
    from pyarrow import json as arrow_json

    data = b"{}\n" + block  # pyarrow 26 crashes where the first line is null
    options = arrow_json.ReadOptions(block_size=len(data) + 1, use_threads=False)
    how = arrow_json.ParseOptions(pa.schema(types), unexpected_field_behavior="ignore")
    try:
        table = arrow_json.read_json(io.BytesIO(data), options, how).slice(1)
    except pa.ArrowInvalid:
        return None
    for i, column in enumerate(table.itercolumns()):
        if pa.types.is_integer(column.type):
            table = table.set_column(i, table.field(i).name, column.cast(pa.string()))
    return table.to_batches()


def _line_by_line(block: bytes, request: Request) -> pa.RecordBatch:
    rows = list(_rows(block, request, request.malformed))
    columns = {name: [row[i] for row in rows] for i, name in enumerate(request.columns)}
    return pa.RecordBatch.from_pydict({name: _array(each) for name, each in columns.items()})


def _rows(block: bytes, request: Request, malformed: Callable[[], object]) -> Iterator[list]:
    for line in io.BytesIO(block):
        if not line.isspace():
            try:
                yield _row(line, request)
            except ValueError:
                malformed()


def _array(values: list[bytes | list | None]) -> pa.Array:
    """Texts, or lists if there are any; then the texts among them are split."""
    if not any(isinstance(value, list) for value in values):
        return pa.array(values, pa.large_binary())
    texts = [value if isinstance(value, bytes) else None for value in values]
    split = pc.split_pattern_regex(pa.array(texts, pa.large_binary()), SEPARATORS).to_pylist()
    pairs = zip(values, split)
    return pa.array([b if isinstance(a, bytes) else a for a, b in pairs], LISTS)


def _row(line: bytes, request: Request) -> list[bytes | list | None]:
    """The values of a line.

    Raises:
        ValueError: it is no row; the message goes on after "line 7 ".
    """
    row = _object(line)
    return [_value(row.get(name), name, name == request.tags) for name in request.columns]


class Integer(str):
    """A whole number as it is written."""


def _object(line: bytes) -> dict[str, Any]:
    """Numbers as they are written; null as an object without keys, as pyarrow takes it."""
    text = line.decode(errors="surrogateescape")
    try:
        row = json.loads(text, parse_int=Integer, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        raise ValueError(NO_OBJECT) from None
    if row is not None and not isinstance(row, dict):
        raise ValueError(NO_OBJECT)
    return row or {}


def _value(value: Any, name: str, may_be_list: bool) -> bytes | list | None:
    """Surrogates become bytes that are no UTF-8, which the build counts and mends."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode(errors="surrogatepass")
    if may_be_list and isinstance(value, list):
        return [_value(each, name, False) for each in value]
    kind = {list: "a list", dict: "an object", bool: "true or false"}[type(value)]
    hint = "; name a column of lists with --tags-column" if isinstance(value, list) else ""
    raise ValueError(f"has {kind} as {name!r}, needs text{hint}")


def _refuse(file: Path, block: bytes, request: Request) -> None:
    """
    Raises:
        ConfigError: about the first line that is no row.
    """
    for number, line in enumerate(io.BytesIO(block), 1):
        try:
            if not line.isspace():
                _row(line, request)
        except ValueError as error:
            raise ConfigError(f"hashtags build: {file}, line {number} {error}") from None
