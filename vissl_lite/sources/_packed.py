"""The format that `vissl-lite shards build` writes and the source `packed` reads.

    shards.json            written last: a folder with it is complete
    data-00000.bin ...     encoded images, or uint8 pixels [H, W, 3], one behind the other
    columns-<16 hex>/      one-dimensional .npy files, see `_columns.py`
        places             uint32 [6 N]: data file, offset, size, CRC-32, width, height
        names              what the source called it
        labels             int32 [N], -1 where an image has none; only if any image has a label
        tags               class ids; only if any image has tags
        classes            the names of the classes, if the source has them
    broken.txt             images that were left out: name, tabulator, reason

The columns' folder is named by a hash of what the shards hold, so that a reader which opened other
shards under the same path never takes columns of these.
"""

import hashlib
import json
import os
import re
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from vissl_lite.errors import ConfigError
from vissl_lite.sources._columns import File

VERSION = 1
FORMAT = "vissl_lite shards"
MANIFEST = "shards.json"
JOURNAL = "building.jsonl"  # there as long as a folder is not complete
ROW = 6  # numbers in `places` for each image
PIECE = 8 << 20  # bytes read at a time where a whole file is needed
OPEN = 256  # data files that a process keeps open


def data_name(number: int) -> str:
    return f"data-{number:05d}.bin"


@dataclass(frozen=True)
class Manifest:
    """What shards.json says.

    Attributes:
        images: how many there are.
        broken: how many images of the source were left out.
        source, settings: what they were built from, and how.
        raw: images are pixels.
        num_classes, named, labels, tags: whether there are classes, names of them, and so on.
        folder: name of the folder of the columns.
        columns: name -> (size, CRC-32) of each column file.
        data: (size, CRC-32) of each data file, in order.
        digest: of the text of shards.json; two states of a folder never share it.
    """

    images: int
    broken: int
    source: dict[str, Any]
    settings: dict[str, Any]
    raw: bool
    num_classes: int | None
    named: bool
    labels: bool
    tags: bool
    folder: str
    columns: dict[str, tuple[int, int]]
    data: list[tuple[int, int]]
    digest: str

    @property
    def size(self) -> int:
        """Bytes of all data files."""
        return sum(size for size, _ in self.data)

    @property
    def index_size(self) -> int:
        """Bytes of all columns."""
        return sum(size for size, _ in self.columns.values())


def parse_manifest(text: bytes, place: str) -> Manifest:
    """Checks shards.json and takes from it only what has the right form: it may come from outside.

    Raises:
        ConfigError: it is no shards.json, or one of another version.
    """
    try:
        found = json.loads(text)
        if found["format"] != FORMAT:
            raise ValueError("it is of another program")
        if found["version"] != VERSION:
            raise ValueError(f"its version is {found['version']}, this is {VERSION}")
        return _manifest(found, hashlib.sha256(text).hexdigest())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{place}: its {MANIFEST} cannot be read ({error}); build the shards again"
        ) from None


def _manifest(found: dict[str, Any], digest: str) -> Manifest:
    count = found["num_classes"]
    manifest = Manifest(
        images=int(found["images"]),
        broken=int(found["broken"]),
        source=dict(found["source"]),
        settings=dict(found["settings"]),
        raw=bool(found["raw"]),
        num_classes=None if count is None else int(count),
        named=bool(found["named"]),
        labels=bool(found["labels"]),
        tags=bool(found["tags"]),
        folder=str(found["folder"]),
        columns={name: _pair(pair) for name, pair in found["columns"].items()},
        data=[_pair(pair) for pair in found["data"]],
        digest=digest,
    )
    if not re.fullmatch("columns-[0-9a-f]{16}", manifest.folder):
        raise ValueError(f"its folder is {manifest.folder!r}")
    if manifest.columns.keys() != column_files(manifest):
        raise ValueError(f"its columns are {', '.join(manifest.columns)}")
    return manifest


def column_files(manifest: Manifest) -> set[str]:
    """Names of the files that its folder of columns must hold."""
    ragged = {"names": True, "tags": manifest.tags, "classes": manifest.named}
    files = {f"{n}.{part}.npy" for n in ragged if ragged[n] for part in ("values", "offsets")}
    return files | {"places.npy"} | ({"labels.npy"} if manifest.labels else set())


def manifest_text(fields: dict[str, Any]) -> bytes:
    """shards.json for the fields of a `Manifest` without `digest`; the same ones, the same text."""
    whole = {"format": FORMAT, "version": VERSION, **fields}
    return json.dumps(whole, sort_keys=True, indent=1).encode()


def _pair(pair: Any) -> tuple[int, int]:
    size, checksum = map(int, pair)
    return size, checksum


def checksum(path: Path) -> tuple[int, int]:
    """(size, CRC-32) of a file, read piece by piece."""
    total, crc = 0, 0
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            total, crc = total + len(piece), zlib.crc32(piece, crc)
    return total, crc


class LocalShards:
    """Reads shards in a folder of this machine."""

    def __init__(self, folder: Path):
        self.folder, self._digest = str(folder), ""  # paths are slow keys

    def manifest(self) -> bytes:
        return Path(self.folder, MANIFEST).read_bytes()

    def columns(self, manifest: Manifest) -> Path:
        """The folder of the columns; all files have the sizes that they should have.

        Raises:
            ConfigError: one has not.
        """
        where = {data_name(number): pair for number, pair in enumerate(manifest.data)}
        where |= {f"{manifest.folder}/{name}": pair for name, pair in manifest.columns.items()}
        for name, (size, _) in where.items():
            path = Path(self.folder, name)
            there = path.stat().st_size if path.is_file() else None
            if there != size:
                what = "is missing" if there is None else f"has {there:,} bytes instead of {size:,}"
                raise ConfigError(
                    f"packed: {path} {what}; copy it again, or build the shards again"
                )
        self._digest = manifest.digest
        return Path(self.folder, manifest.folder)

    def read(self, number: int, offset: int, size: int) -> bytes:
        """`size` bytes of a data file from `offset` on, fewer at its end."""
        return _opened(self.folder, number, self._digest).read(offset, size)

    def forget(self, number: int, offset: int, size: int) -> None:
        """Nothing is kept here."""


@lru_cache(maxsize=OPEN)
def _opened(folder: str, number: int, digest: str) -> File:
    """`digest` is that of the manifest, so that shards which were replaced are opened anew."""
    return File(os.path.join(folder, data_name(number)))
