"""Reads the layout of webdataset from tar files: samples, members, names of shards."""

import itertools
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.sources._columns import File
from vissl_lite.sources._files import EXTENSIONS


class Member(NamedTuple):
    """A regular file in a shard."""

    name: str
    key: str
    extension: str
    offset: int
    size: int


def expand_braces(pattern: str) -> list[str]:
    """As a shell does: 'x-{08..10}.tar' -> x-08.tar, x-09.tar, x-10.tar; '{a,b}' -> a, b."""
    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if match is None:
        return [pattern]
    first, last, listed = match.groups()
    if listed is None:
        middle = [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)]
    else:
        middle = listed.split(",")
    rest = expand_braces(pattern[match.end() :])
    return [pattern[: match.start()] + m + r for m in middle for r in rest]


def samples(shard: Path, wanted: str | None) -> Iterator[tuple[Member, Any]]:
    """The image of each sample, and the content of the member or field `wanted` beside it."""
    extension, _, field = (wanted or "").partition(":")
    file = File(shard)
    for key, group in itertools.groupby(_members(shard), key=lambda member: member.key):
        members = list(group)
        images = [m for m in members if f".{m.extension}" in EXTENSIONS]
        images = images or [m for m in members if m.extension.endswith(EXTENSIONS)]
        if len(images) > 1:
            raise ConfigError(
                f"tar_shards: sample {key!r} in {shard} has {len(images)} images; give each"
                " a key of its own"
            )
        value = None
        for member in members:
            if wanted and member.extension == extension:
                text = file.read(member.offset, member.size)
                value = _value(text, field, f"{member.name} in {shard}")
        if images:
            yield images[0], value


def _value(text: bytes, field: str, place: str) -> Any:
    """The stripped text of a member, or a field of the JSON object in it."""
    try:
        content = json.loads(text) if field else {"": text.decode().strip()}
    except ValueError as error:
        raise ConfigError(f"tar_shards: {place} cannot be read ({error}); needs UTF-8") from error
    if not isinstance(content, dict) or field not in content:
        hint = did_you_mean(field, content) if isinstance(content, dict) else ""
        raise ConfigError(f"tar_shards: {place} is no JSON object with a field {field!r}{hint}")
    value = content[field]
    return value if isinstance(value, list) or value is None else str(value)


def _members(shard: Path) -> Iterator[Member]:
    """The regular files of a tar file, in order, from its headers alone."""
    try:
        with tarfile.open(shard, "r:") as tar:
            while (info := tar.next()) is not None:
                folder, _, base = info.name.rpartition("/")
                if info.isreg() and not info.issparse() and not base.startswith("."):
                    stem, _, extension = base.partition(".")
                    key, extension = f"{folder}/{stem}", extension.lower()
                    yield Member(info.name, key, extension, info.offset_data, info.size)
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue] (it keeps them all)
            if File(shard).read(tar.offset, tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError("broken header")  # tarfile takes it for the end
    except tarfile.TarError as error:
        raise ConfigError(
            f"tar_shards: {shard} is cut off, compressed or no tar file ({error}); needs a whole,"
            " uncompressed one"
        ) from error
