"""The folder of a vocabulary.

    classes.tsv      id, class, images, members "tag:images tag:images", synset; a line per class
    images.parquet   image: path or id as string; classes: ascending class ids, list<int32>
    statistics.json  what was counted; statistics.html shows it
    meta.json        format version, settings, digests of the inputs and of classes.tsv

The metadata of images.parquet hold the digest of classes.tsv too, so that a source can tell whether
the two belong together, and the folder that relative images start from.
"""

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vissl_lite.errors import ConfigError
from vissl_lite.hashtags.vocabulary import TagClass
from vissl_lite.shards.stopped import BuildStopped
from vissl_lite.sources._hashtags import CLASSES, HEADER, STAMP, VERSION, class_rows, digest

IMAGES, META, STATISTICS, PAGE = "images.parquet", "meta.json", "statistics.json", "statistics.html"
GROUP = 1 << 17  # rows of a row group


def write_classes(file: Path, classes: Iterable[TagClass]) -> None:
    with open(file, "w", encoding="utf-8", newline="\n") as lines:
        lines.write("\t".join(HEADER) + "\n")
        for number, each in enumerate(classes):
            members = " ".join(f"{tag}:{count}" for tag, count in each.members)
            lines.write(f"{number}\t{each.name}\t{each.images}\t{members}\t{each.synset}\n")


def read_classes(folder: Path) -> list[TagClass]:
    """
    Raises:
        ConfigError: the folder is no vocabulary.
    """
    if not (folder / CLASSES).is_file():
        raise ConfigError(
            f"hashtags: {folder} has no {CLASSES}; it is not what hashtags build makes"
        )
    return [
        TagClass(name, int(images), tuple(map(_member, members.split())), synset)
        for _, name, images, members, synset in class_rows(folder / CLASSES)
    ]


def read_meta(folder: Path) -> dict[str, Any]:
    """meta.json.

    Raises:
        ConfigError: it is missing or of another format version, or classes.tsv is another file.
    """
    try:
        meta = read_json(folder / META)
        version, classes = meta["version"], meta["classes"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"hashtags: {folder / META} cannot be read ({type(error).__name__}: {error}); take the"
            " folder as hashtags build made it"
        ) from error
    if version != VERSION:
        raise ConfigError(
            f"hashtags: {folder} is a vocabulary of format version {version}, this is {VERSION};"
            " build it again"
        )
    if (found := digest(folder / CLASSES)) != classes:
        raise ConfigError(
            f"hashtags: {folder / CLASSES} is {found[:16]}, {META} beside it is of"
            f" {classes[:16]}; take the two from the same folder"
        )
    return meta


def _member(text: str) -> tuple[str, int]:
    tag, _, count = text.rpartition(":")
    return tag, int(count)


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes `out` when all went well, and is removed if not."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"hashtags build: --out {out} is not empty; name a new folder")
    new = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}"
    try:
        new.mkdir(parents=True)
        yield new
        os.replace(new, out)
    except OSError as error:
        raise BuildStopped(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


class ImageWriter:
    """Writes images.parquet in row groups of GROUP rows, whatever comes at once.

    Args:
        classes: digest of classes.tsv.
        root: folder that relative images start from.
    """

    def __init__(self, file: Path, classes: str, root: Path):
        stamp = json.dumps({"version": VERSION, "classes": classes, "root": str(root)})
        self._schema = pa.schema(
            [("image", pa.large_string()), ("classes", pa.list_(pa.int32()))], {STAMP: stamp}
        )
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")
        self._waiting, self._rows = [], 0

    def add(self, images: pa.Array, counts_N: np.ndarray, ids_T: np.ndarray) -> None:
        offsets = np.append(0, np.cumsum(counts_N)).astype(np.int32)
        classes = pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids_T, pa.int32()))
        self._waiting.append(pa.record_batch([images, classes], schema=self._schema))
        self._rows += len(images)
        if self._rows >= GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._waiting, self._schema)
        if table.num_rows:
            self._writer.write_table(table, GROUP)
        self._waiting, self._rows = [], 0


def write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def examples(folder: Path, number: int, count: int) -> Sequence[str]:
    """The first `count` images of a class; reads as far as it must."""
    found: list[str] = []
    with pq.ParquetFile(folder / IMAGES) as file:
        for batch in file.iter_batches(GROUP):
            lists = batch["classes"]
            rows = np.repeat(np.arange(len(lists)), np.diff(lists.offsets.to_numpy()))
            hits = rows[lists.flatten().to_numpy() == number]
            found += batch["image"].take(pa.array(hits[: count - len(found)])).to_pylist()
            if len(found) == count:
                break
    return found
