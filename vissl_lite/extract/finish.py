"""The end of an extraction: names, labels and the list of broken images, from the journals."""

from __future__ import annotations

from pathlib import Path

from vissl_lite.extract.blocks import UNLABELLED
from vissl_lite.extract.folder import Folder
from vissl_lite.extract.journal import Done
from vissl_lite.io import replace_text, sync
from vissl_lite.sources._columns import ColumnWriter, write_strings

NAMES, LABELS, BROKEN = "names", "labels.npy", "broken.txt"


def finish(folder: Folder, done: Done) -> None:
    """Writes everything in the order of the source, marks the folder as complete, and drops the
    journals.

    `labels.npy` is left out where no image has a label.
    """
    for file in (LABELS, f"{NAMES}.values.npy", f"{NAMES}.offsets.npy"):
        (folder.path / file).unlink(missing_ok=True)  # of a process that was killed here
    write_strings(folder.path, NAMES, (n for line in done.in_order() for n in line["names"]))
    _write_labels(folder.path / LABELS, done)
    broken = _write_broken(folder, done)
    for layer in folder.layers:
        sync(folder.array_file(layer))
    folder.write_meta(complete=True, broken=broken)
    for file in done.files:
        file.unlink()


def _write_labels(path: Path, done: Done) -> None:
    labels, labelled = ColumnWriter(path, "int64"), False
    for line in done.in_order():
        labels.extend(line["labels"])
        labelled = labelled or any(label != UNLABELLED for label in line["labels"])
    labels.close()
    if not labelled:
        path.unlink()


def _write_broken(folder: Folder, done: Done) -> int:
    """A line "index, name, reason" per broken image; returns how many there are."""
    lines = [
        f"{line['block'] * folder.batch_size + b}\t{line['names'][b]}\t{reason}\n"
        for line in done.in_order()
        for b, reason in line["broken"]
    ]
    replace_text(folder.path / BROKEN, "".join(lines))
    return len(lines)
