"""What the words of the commands have in common: a source of images, numbers, mistakes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from vissl_lite import SOURCES
from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.overrides import compose
from vissl_lite.sources._packed import MANIFEST
from vissl_lite.sources._rows import READERS

SOURCE_IS = f"""SOURCE is
  a folder of images                    source image_folder
  a tar file, a pattern in quotes       tar_shards
  {", ".join(READERS)}
                                        table
  .txt or .npy with paths               file_list
  a folder or address of shards         packed
  the name of any source                with its parameters as key=value
  config=RECIPE                         data.source of that recipe
key=value are parameters of the source, such as label=cls, or changes of the recipe."""


def source_config(words: Sequence[str], command: str) -> dict[str, Any]:
    """The config of the source that the words of a command line mean.

    Args:
        command: what a message names as its place.

    Raises:
        ConfigError: neither a recipe, nor a source, nor a path of a known kind.
    """
    if any(word.startswith("config=") for word in words):
        return dict(compose(words).data.source)
    first, rest = words[0], words[1:]
    if wrong := [word for word in rest if "=" not in word]:
        raise ConfigError(
            f"{command}: {wrong[0]!r} is no key=value; put a pattern of paths in quotes, so that"
            " the shell leaves it as it is"
        )
    given = {key: yaml.safe_load(value) for key, _, value in (w.partition("=") for w in rest)}
    if first in SOURCES:
        return {"name": first, **given}
    return {"name": _kind(first, command), "path": first, **given}


def identity(config: dict[str, Any], command: str) -> dict[str, Any]:
    """All that decides which images a source has, in which order."""
    full = SOURCES.check(config, command)
    return {key: value for key, value in full.items() if key not in ("index", "refresh")}


def _kind(path: str, command: str) -> str:
    """The source that reads what lies there."""
    ending = Path(path).suffix.lower()
    by_ending = {".tar": "tar_shards", ".txt": "file_list", ".npy": "file_list"}
    by_ending |= dict.fromkeys(READERS, "table")
    if "://" in path or (Path(path) / MANIFEST).is_file():
        return "packed"
    if ending in by_ending:
        return by_ending[ending]
    if Path(path).expanduser().is_dir() or "/" in path:  # the source says what is missing
        return "image_folder"
    raise ConfigError(
        f"{command}: {path!r} is no folder, no {', '.join(by_ending)} and no source"
        f"{did_you_mean(path, SOURCES) or ';'} sources: {', '.join(SOURCES.names())}"
    )


class Parser(argparse.ArgumentParser):
    """Says what is wrong as every command here does."""

    def __init__(self, command: str):
        super().__init__(prog=command, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        help_of = self.prog.partition(" ")[0]
        raise ConfigError(f"{self.prog}: {message}; see vissl-lite {help_of} --help")


def whole(low: int, high: int) -> Callable[[str], int]:
    """A type for `Parser`: whole numbers from `low` to `high`."""

    def convert(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} to {high}")
        return int(text)

    return convert


def results_folder(path: Path, place: str) -> None:
    """Makes a folder now, so that nothing is computed for one that cannot be.

    Raises:
        ConfigError: it cannot be made or written; `place` is what a message names.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{place}: {path} cannot be made ({error.strerror})") from None
    if not os.access(path, os.W_OK):
        raise ConfigError(f"{place}: {path} cannot be written; name another folder")


def unwritable(file: Path) -> str | None:
    """What stands against writing this file, asked before anything is computed for it."""
    folder = file.absolute().parent
    if file.is_dir():
        return f"{file} is a folder; name a file in it"
    if not folder.is_dir():
        return f"there is no folder {folder}; make it, or name another file"
    if not os.access(folder, os.W_OK):
        return f"{folder} cannot be written; name a file elsewhere"
    return None


def check_file(file: Path, place: str) -> None:
    """
    Raises:
        ConfigError: the file cannot be written; `place` is what a message names.
    """
    if problem := unwritable(file):
        raise ConfigError(f"{place}: {problem}")


def cores() -> int:
    return len(os.sched_getaffinity(0))
