"""What sources read of a vocabulary of `vissl-lite hashtags build` (docs/hashtags.md)."""

import hashlib
import json
from pathlib import Path
from typing import Any

from vissl_lite.errors import ConfigError

CLASSES = "classes.tsv"
HEADER = ("id", "class", "images", "members", "synset")
STAMP = b"vissl_lite.hashtags"  # key in the metadata of images.parquet
VERSION = 1


def is_classes(path: Path) -> bool:
    """Whether a file is the classes.tsv of a vocabulary."""
    with open(path, "rb") as file:
        return file.readline(100).rstrip(b"\r\n") == "\t".join(HEADER).encode()


def class_rows(path: Path) -> list[list[str]]:
    """The values of every line, in the order of the class ids.

    Raises:
        ConfigError: the file is broken: ids that do not count from 0, or missing values.
    """
    with open(path, encoding="utf-8", newline="\n") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    for number, row in enumerate(rows):
        if len(row) != len(HEADER) or row[0] != str(number):
            raise ConfigError(
                f"{path}: line {number + 2} is no class {number} with {', '.join(HEADER[1:])}; take"
                " the file as vissl-lite hashtags build wrote it"
            )
    return rows


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def stamp_of(file: Path) -> dict[str, Any] | None:
    """What images.parquet says of its vocabulary: version, classes (a digest), root; None if none.

    Raises:
        ConfigError: it was written in another format version.
    """
    if file.suffix != ".parquet":
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        text = (pq.read_schema(file).metadata or {}).get(STAMP)
    except pa.ArrowException:
        return None  # whoever reads the rows says what is wrong
    stamp = None if text is None else json.loads(text)
    if stamp and stamp["version"] != VERSION:
        raise ConfigError(
            f"{file}: a table of hashtags of format version {stamp['version']}, this is"
            f" {VERSION}; build it again"
        )
    return stamp


def check_together(file: Path, classes: Path | None) -> None:
    """
    Raises:
        ConfigError: `file` has class ids of another vocabulary than `classes`.
    """
    stamp = stamp_of(file)
    if stamp is None:
        return
    if classes is None:
        raise ConfigError(
            f"table: {file} has class ids of the vocabulary {stamp['classes'][:16]}; put its"
            f" {CLASSES} beside it, or name that file with `vocabulary`"
        )
    if (found := digest(classes)) != stamp["classes"]:
        raise ConfigError(
            f"table: {file} was made with the vocabulary {stamp['classes'][:16]}, {classes} is"
            f" {found[:16]}; take the two from the same folder, or build the images again"
        )
