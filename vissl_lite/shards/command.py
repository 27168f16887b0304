"""`vissl-lite shards build|verify|info`: images in a few large files, for fast reading."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vissl_lite import SOURCES
from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.shards.build import build
from vissl_lite.shards.convert import GIB, Settings
from vissl_lite.shards.finish import BROKEN
from vissl_lite.shards.stopped import BuildStopped
from vissl_lite.shards.verify import damages
from vissl_lite.sources._packed import Manifest
from vissl_lite.sources.packed import Packed
from vissl_lite.words import SOURCE_IS, Parser, cores, identity, source_config, whole

USAGE = f"""usage: vissl-lite shards build SOURCE [key=value ...] --out DIR [options]
       vissl-lite shards verify DIR
       vissl-lite shards info DIR

build    packs the images of a source into a few large files, which training reads with
         data/source=packed data.source.path=DIR. Started again after a stop, it goes on.
verify   reads everything and names the images that are damaged; exit code 1 if there are any
info     what DIR, also an address, holds

{SOURCE_IS}

--out DIR        of this machine, outside SOURCE; new, empty, or holding a build of the same that
                 was stopped
--short-side N   shrink images whose shorter side is longer; none is enlarged; default: keep all
--quality Q      of the JPEGs that shrunk images become, 1 to 95; default 90. Images that are not
                 shrunk keep their bytes
--raw            keep uint8 pixels: no decoding in training, several times the room
--workers N      processes; default: all cores. The result does not depend on it
--max-broken N   images that cannot be read are left out and listed in DIR/{BROKEN}; more than N
                 stop the build; default 100
--shard-size S   GiB of a data file, below 4; default 1
"""
SMALL_SIDE = 400  # below it SwAV's small crops lose resolution


def main(words: Sequence[str]) -> int:
    """The command; returns its exit code.

    Raises:
        ConfigError: a mistake in the words, or something wrong with source or folder.
    """
    if not words or {"-h", "--help"} & set(words):
        print(USAGE)
        return 0
    if words[0] not in COMMANDS:
        close = did_you_mean(words[0], COMMANDS) or ";"
        raise ConfigError(f"shards: unknown {words[0]!r}{close} there are: {', '.join(COMMANDS)}")
    try:
        return COMMANDS[words[0]](words[1:])
    except BuildStopped as error:
        print(f"shards build: {error}", file=sys.stderr)
        return 1


def _build(words: Sequence[str]) -> int:
    options = _parsed(words)
    config = source_config(options.source, "shards build")
    out = _place(options.out, config)
    settings = _settings(options)
    if settings.short_side is not None and settings.short_side < SMALL_SIDE:
        print(_small(settings.short_side))
    source = SOURCES.build(config, "shards build")
    described = identity(config, "shards build")
    manifest = build(source, described, settings, out, options.workers, options.max_broken)
    print(summary(manifest, str(out)))
    return 0


def _place(given: str, config: dict[str, Any]) -> Path:
    """The folder of the shards.

    Raises:
        ConfigError: it cannot be that.
    """
    if "://" in given:
        raise ConfigError(
            f"shards build: --out {given} is an address, and shards are built in a folder of this"
            f" machine; copy that to {given}, where data/source=packed reads it"
        )
    out = Path(given).expanduser().absolute()
    if out.is_file():
        raise ConfigError(f"shards build: --out {out} is a file; name a folder")
    for folder in _image_folders(config):
        if out.resolve().is_relative_to(folder.expanduser().resolve()):
            raise ConfigError(
                f"shards build: --out {out} is inside {folder}, whose images it packs, and would be"
                " taken for a folder of images there; name one outside"
            )
    return out


def _image_folders(config: Any) -> Iterator[Path]:
    """The folders that a source, or one that it is made of, lists."""
    if isinstance(config, Mapping):
        if config.get("name") == "image_folder":
            yield Path(str(config.get("path")))
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            yield from _image_folders(part)


def _settings(options: argparse.Namespace) -> Settings:
    """
    Raises:
        ConfigError: a quality, and nothing that becomes a JPEG.
    """
    quality = Settings.quality if options.quality is None else options.quality
    if options.quality is not None and options.raw:
        raise ConfigError(
            "shards build: --raw keeps pixels, which have no --quality; leave one out"
        )
    if options.quality is not None and options.short_side is None:
        raise ConfigError(
            "shards build: --quality is of images that are shrunk, and without --short-side none"
            " is; give that too, or leave it out"
        )
    return Settings(options.short_side, quality, options.raw, int(options.shard_size * GIB))


def _small(side: int) -> str:
    low, high = (round(side * share**0.5) for share in (0.05, 0.14))
    return (
        f"note: SwAV's small crops, 5 to 14 % of an image, are {low} to {high} pixels wide at"
        f" --short-side {side} and would be enlarged to 96: another augmentation than that of the"
        f" originals; {SMALL_SIDE} keeps it"
    )


def _verify(words: Sequence[str]) -> int:
    path = _only("verify", words)
    found = 0
    for sentence in damages(path):
        print(sentence)
        found += 1
    print(f"{path}: {found:,} damaged" if found else f"{path}: all images fit their checksums")
    return 1 if found else 0


def _info(words: Sequence[str]) -> int:
    path = _only("info", words)
    source = Packed(path)
    print(summary(source.manifest, path))
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "build": _build,
    "verify": _verify,
    "info": _info,
}


def summary(manifest: Manifest, path: str) -> str:
    """What shards hold, in a few lines."""
    settings = manifest.settings
    if manifest.raw:
        form = "pixels, not encoded"
    elif settings.get("short_side"):
        form = f"encoded; JPEG of quality {settings.get('quality')} where shrunk"
    else:
        form = "encoded, as in the source"
    side = settings.get("short_side")
    targets = [word for word in ("labels", "tags") if getattr(manifest, word)]
    classes = "" if manifest.num_classes is None else f", {manifest.num_classes:,} classes"
    broken = f"; {manifest.broken:,} broken ones left out" if manifest.broken else ""
    lines = {
        "images": f"{manifest.images:,}, {form}{broken}",
        "short side": f"at most {side}" if side else "as in the source",
        "targets": (" and ".join(targets) or "none") + classes,
        "size": f"{_bytes(manifest.size)} in {len(manifest.data):,} files, columns"
        f" {_bytes(manifest.index_size)}",
        "source": f"{manifest.source.get('name')} {manifest.source.get('path', '')}",
        "to read them": f"data/source=packed data.source.path={path}",
    }
    return "\n".join([path, *(f"  {key:13} {value}" for key, value in lines.items())])


def _bytes(size: float) -> str:
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    power = min(max(int(size).bit_length() - 1, 0) // 10, 4)
    return f"{size / 1024**power:,.{min(power, 1)}f} {units[power]}"


# ---------------------------------------------------------------- words


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser("shards build")
    parser.add_argument("source", nargs="+", metavar="SOURCE")
    parser.add_argument("--out", required=True)
    parser.add_argument("--short-side", type=whole(1, 65_535))
    parser.add_argument("--quality", type=whole(1, 95))
    parser.add_argument("--raw", action="store_true")
    parser.add_argument("--workers", type=whole(1, 4096), default=cores())
    parser.add_argument("--max-broken", type=whole(0, 10**12), default=100)
    parser.add_argument("--shard-size", type=_size, default=1.0)
    return parser.parse_intermixed_args(words)


def _size(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < 4:  # offsets have 32 bits
        raise argparse.ArgumentTypeError(f"{text!r} is no number between 0 and 4")
    return size


def _only(command: str, words: Sequence[str]) -> str:
    if len(words) != 1:
        raise ConfigError(f"shards {command}: needs one folder or address, got {len(words)}")
    return words[0]
