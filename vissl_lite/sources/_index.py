"""Indexes: what a source found, written once and opened instantly ever after.

    <cache>/index/<kind>-<hash>/    or the folder that the parameter `index` names
        vissl_lite_index.json       key, notes, and the name of the folder with the data
        data-<32 hex digits>/       columns (`_columns.py`); never changed once they are named
        lock                        held by the process that builds; the others wait for it

An index is built again when its key differs (place or options of the source, time of last change
of what it lists) or on `refresh`. A build writes a new data folder and then replaces the .json
file, so that a killed build leaves the old index and running jobs keep reading the one they opened.
Data folders that are named no more are removed by the next build when they are a week old.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vissl_lite.errors import ConfigError
from vissl_lite.io import cache_folder

VERSION = 1
INDEX = "vissl_lite_index.json"
KEEP = 7 * 24 * 3600  # seconds that a running job may still open files of a replaced index


def stamp(file: str | Path | int) -> list[int]:
    """Size and time of last change: what tells two states of a file apart without reading it.

    Args:
        file: its path, or the descriptor of an open one.
    """
    state = os.stat(file)
    return [state.st_size, state.st_mtime_ns]


def prepared(
    kind: str,
    identity: dict[str, Any],
    state: dict[str, Any],
    build: Callable[[Path], dict[str, Any]],
    index: str | None = None,
    refresh: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """The data folder of an index and its notes, built first where there is none with this key.

    Args:
        identity: what the source lists and how; together with `kind` it names the cache folder.
        state: changes when the listing may have changed.
        build: writes columns into the empty folder it is given and returns notes, plain JSON.
        index: folder of the index, instead of one in the cache.
        refresh: build even if the key is the same; processes that ask together build it once.

    Raises:
        ConfigError: the index cannot be written there; and what `build` raises.
    """
    asked = time.time()
    key = json.loads(json.dumps({"version": VERSION, "kind": kind, **identity, **state}))
    place = Path(index).expanduser() if index else _cached(kind, identity)
    if not refresh and (found := _read(place, key, built_after=0)):
        return found
    with _locked(place, kind):
        return _read(place, key, asked if refresh else 0) or _build(place, key, build)


def _cached(kind: str, identity: dict[str, Any]) -> Path:
    text = json.dumps(identity, sort_keys=True)
    return cache_folder() / "index" / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def _read(place: Path, key: dict, built_after: float) -> tuple[Path, dict[str, Any]] | None:
    try:
        found = json.loads((place / INDEX).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    folder = place / Path(found["data"]).name
    if found["key"] != key or found["built"] < built_after or not folder.is_dir():
        return None
    return folder, found["notes"]


def _build(place: Path, key: dict, build: Callable[[Path], dict]) -> tuple[Path, dict[str, Any]]:
    folder = place / f"data-{uuid.uuid4().hex}"
    folder.mkdir()
    try:
        notes = build(folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
    text = json.dumps({"key": key, "notes": notes, "data": folder.name, "built": time.time()})
    (place / f"{INDEX}.new").write_text(text)
    os.replace(place / f"{INDEX}.new", place / INDEX)
    _prune(place, folder)
    return folder, notes


def _prune(place: Path, current: Path) -> None:
    for folder in place.iterdir():
        ours = re.fullmatch("data-[0-9a-f]{32}", folder.name) and folder != current
        if ours and time.time() - folder.stat().st_mtime > KEEP:
            shutil.rmtree(folder)


@contextlib.contextmanager
def _locked(place: Path, kind: str) -> Iterator[None]:
    try:
        place.mkdir(parents=True, exist_ok=True)
        file = open(place / "lock", "w")  # noqa: SIM115
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        raise ConfigError(
            f"{kind}: the index cannot be written to {place} ({error.strerror}); name another "
            "folder with `index` or $VISSL_LITE_CACHE"
        ) from error
    with file:
        yield
