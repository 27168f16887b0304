"""The end of a build: columns from the journal, then shards.json, and the folder is complete."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from vissl_lite.errors import ConfigError
from vissl_lite.io import sync
from vissl_lite.resumable import write_all
from vissl_lite.shards.journal import Journal
from vissl_lite.sources._columns import ColumnWriter, bytes_writer, ids_writer, write_strings
from vissl_lite.sources._packed import (
    JOURNAL,
    MANIFEST,
    Manifest,
    checksum,
    data_name,
    manifest_text,
    parse_manifest,
)
from vissl_lite.sources._source import shown

BROKEN = "broken.txt"
NEW_COLUMNS = "columns.new"


def finish(journal: Journal, header: dict[str, Any], source: Any) -> Manifest:
    """Writes the columns, then shards.json: from then on the folder is complete."""
    state, out = journal.state, journal.folder
    if state.images == 0:
        raise ConfigError(f"shards build: none of the {len(source):,} images can be read")
    columns = _write_columns(journal, source.classes)
    write_broken(journal)
    fields: dict[str, Any] = {
        **{key: header[key] for key in ("source", "settings", "source_probe")},
        "images": state.images,
        "broken": state.broken,
        "raw": header["settings"]["raw"],
        "num_classes": None if source.num_classes is None else int(source.num_classes),
        "named": source.classes is not None,
        "labels": state.labels,
        "tags": state.tags,
        "columns": columns,
        "data": state.data,
    }
    digest = hashlib.sha256(manifest_text(fields)).hexdigest()
    fields["folder"] = f"columns-{digest[:16]}"
    os.rename(out / NEW_COLUMNS, out / fields["folder"])
    for name in (fields["folder"], *map(data_name, range(len(state.data)))):
        sync(out / name)
    text = manifest_text(fields)
    _publish(out, text)
    return parse_manifest(text, str(out))


def _publish(out: Path, text: bytes) -> None:
    with open(out / f"{MANIFEST}.new", "wb", buffering=0) as file:
        write_all(file, text)
    sync(out / f"{MANIFEST}.new")
    os.replace(out / f"{MANIFEST}.new", out / MANIFEST)
    sync(out)
    (out / JOURNAL).unlink()


def _write_columns(journal: Journal, classes: list[str] | None) -> dict[str, tuple[int, int]]:
    """Writes the files of `columns.new` and returns the size and CRC-32 of each."""
    for old in (*journal.folder.glob("columns-*"), journal.folder / NEW_COLUMNS):
        shutil.rmtree(old, ignore_errors=True)  # of an end that was interrupted
    folder = journal.folder / NEW_COLUMNS
    folder.mkdir()
    places, names = ColumnWriter(folder / "places.npy", "uint32"), bytes_writer(folder, "names")
    labels = ColumnWriter(folder / "labels.npy", "int32") if journal.state.labels else None
    tags = ids_writer(folder, "tags") if journal.state.tags else None
    for record in journal.records():
        places.extend([number for place in record["places"] for number in place])
        for name in record["names"]:
            names.add(os.fsencode(name))
        if labels:
            labels.extend([-1 if label is None else label for label in record["labels"]])
        if tags:
            for row in record["tags"]:
                tags.add(row or [])
    for writer in filter(None, (places, names, labels, tags)):
        writer.close()
    if classes is not None:
        write_strings(folder, "classes", classes)
    return {path.name: checksum(path) for path in sorted(folder.iterdir())}


def write_broken(journal: Journal) -> list[tuple[str, str]]:
    """Lists the images that are left out, if there are any."""
    broken = [tuple(pair) for record in journal.records() for pair in record["broken"]]
    if broken:
        lines = "".join(f"{shown(name)}\t{shown(reason)}\n" for name, reason in broken)
        (journal.folder / BROKEN).write_text(lines, encoding="utf-8")
    return broken
