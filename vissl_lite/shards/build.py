"""Builds shards: several processes convert, one writes in the order of the source."""

import json
import zlib
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vissl_lite.data.decode import BrokenImage
from vissl_lite.errors import ConfigError
from vissl_lite.progress import counter
from vissl_lite.shards.convert import Settings
from vissl_lite.shards.finish import BROKEN, finish, write_broken
from vissl_lite.shards.journal import Journal, check_header
from vissl_lite.shards.pool import converted
from vissl_lite.shards.stopped import as_stopped
from vissl_lite.sources._packed import JOURNAL, MANIFEST, Manifest, parse_manifest

PROBES = 64  # images whose names and targets tell whether the source is the same


def build(
    source: Any,
    identity: dict[str, Any],
    settings: Settings,
    out: Path,
    workers: int,
    max_broken: int,
) -> Manifest:
    """Shards of a source in `out`; goes on where a build of the same was stopped.

    The result is the same, bit for bit, for any number of workers and any interruptions.

    Args:
        identity: what the source is: name and parameters.
        workers: processes that convert; 1: this one does.
        max_broken: images that may be left out.

    Raises:
        ConfigError: other shards lie there or other files do, or too many images are broken.
        BuildStopped: the disk is full or cannot be written, or a worker was killed.
    """
    header = {
        "source": identity,
        "settings": asdict(settings),
        "source_images": len(source),
        "source_probe": probe(source),
    }
    with as_stopped(out):
        found = _prepare(out, header)
    if found is not None:
        return found
    with as_stopped(out):
        journal = Journal(out, header, settings.shard_size)
    if (out / MANIFEST).is_file():  # another process has been faster
        journal.close()
        return build(source, identity, settings, out, workers, max_broken)
    with closing(journal), counter(f"building {out}", total=len(source)) as progress:
        with as_stopped(out):
            journal.resume(progress.add)
        for chunk in converted(source, settings, journal.state.next, workers):
            with as_stopped(out):
                journal.append(chunk)
            progress.add(chunk.stop - chunk.start)
            _check_broken(journal, max_broken)
        _check_broken(journal, max_broken)
        with as_stopped(out):
            return finish(journal, header, source)


def probe(source: Any) -> int:
    """A checksum of names and targets of some images; most changes of a source change it."""
    known = 0
    for k in range(min(PROBES, len(source))):
        index = k * len(source) // min(PROBES, len(source))
        try:
            sample = source[index]
        except BrokenImage as error:
            sample = error
        seen = (sample.name, getattr(sample, "label", None), getattr(sample, "tags", None))
        known = zlib.crc32(repr(seen).encode(errors="surrogateescape"), known)
    return known


def _prepare(out: Path, header: dict[str, Any]) -> Manifest | None:
    """Makes the folder; returns the manifest if everything in it is done."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / MANIFEST).is_file():
        text = (out / MANIFEST).read_bytes()
        manifest = parse_manifest(text, f"shards build: {out}")
        check_header(header, _header_of(json.loads(text)), out)
        (out / JOURNAL).unlink(missing_ok=True)
        return manifest
    if any(out.iterdir()) and not (out / JOURNAL).is_file():
        raise ConfigError(
            f"shards build: {out} holds other files; give a new or an empty folder with --out"
        )
    return None


def _header_of(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "source": fields["source"],
        "settings": fields["settings"],
        "source_images": fields["images"] + fields["broken"],
        "source_probe": fields["source_probe"],
    }


def _check_broken(journal: Journal, most: int) -> None:
    if journal.state.broken <= most:
        return
    *_, last = write_broken(journal)
    raise ConfigError(
        f"shards build: {journal.state.broken:,} images cannot be read, more than --max-broken"
        f" {most:,}, the last one: {last[0]}: {last[1]}; all are listed in"
        f" {journal.folder / BROKEN}; start the same command with a higher --max-broken to go on"
        " without them"
    )
