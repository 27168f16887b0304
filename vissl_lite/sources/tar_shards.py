"""Images in tar files, in the layout of webdataset."""

import glob
import os
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from vissl_lite import SOURCES
from vissl_lite.errors import ConfigError
from vissl_lite.progress import counter
from vissl_lite.sources._classes import TargetWriter, read_names, split_tags
from vissl_lite.sources._columns import (
    Column,
    ColumnWriter,
    File,
    Strings,
    bytes_writer,
    write_strings,
)
from vissl_lite.sources._files import EXTENSIONS
from vissl_lite.sources._index import prepared, stamp
from vissl_lite.sources._source import IndexedSource, check_local, existing_file
from vissl_lite.sources._tar import expand_braces, samples


@SOURCES.register("tar_shards")
class TarShards(IndexedSource):
    """Images in tar files, in the layout of webdataset: `key.jpg` beside `key.cls` or `key.json`.

    The members that follow one another with the same key (the name up to the first dot of its
    last part) are one sample. The shards are read once for an index of where each image starts;
    then any image is one read at its offset. Nothing is ever extracted, and the name of a member
    is never taken for a path.

    Args:
        path: a tar file, or a pattern: "/data/train-{000000..000099}.tar", "/data/{a,b}-*.tar".
        label: member that holds the class of a sample, a whole number or a name: "cls", "txt", or
            a field of one, "json:label".
        tags: member that holds the tags, a string: "txt"; or a field, also a list: "json:tags".
        separator: stands between the tags in a string; one space stands for any white space.
        vocabulary: text file of class names, one per line; see `table`.
        index: folder for the index, instead of one in the cache.
        refresh: read the shards again.

    Raises:
        ConfigError: a shard is missing, compressed, cut off or without images; label and tags at
            once; a sample has two images, or no label; a shard changed while it was being read.
    """

    def __init__(
        self,
        path: str,
        label: str | None = None,
        tags: str | None = None,
        separator: str = " ",
        vocabulary: str | None = None,
        index: str | None = None,
        refresh: bool = False,
    ):
        if label and tags:
            raise ConfigError("tar_shards: has label and tags; name one, the classes come from it")
        self.path = path
        shards = _shards(path)
        words = existing_file(vocabulary, "tar_shards.vocabulary") if vocabulary else None
        identity = {
            "path": os.path.abspath(os.path.expanduser(path)),
            "members": [label, tags],
            "separator": separator,
            "vocabulary": words and str(words),
        }
        stamps = [stamp(shard) for shard in shards]
        state = {
            "shards": [[str(shard), *s] for shard, s in zip(shards, stamps)],
            "words": words and stamp(words),
        }
        build = partial(_build, shards, label, tags, separator, words)
        folder, notes = prepared("tar_shards", identity, state, build, index, refresh)
        super().__init__(folder, notes)
        self._version, self._stamps = folder.name, np.array(stamps)
        self._shards, self._names = Strings(folder, "shards"), Strings(folder, "names")
        self._places = Column(folder / "places.npy")

    def __len__(self) -> int:
        return len(self._names)

    def image(self, index: int) -> tuple[bytes, str]:
        shard, offset, size = self._places.read(3 * index, 3 * index + 3)
        path = self._shards[shard]
        try:
            file = _opened(path, self._version)
            content = file.read(int(offset), int(size))
        except FileNotFoundError:
            raise ConfigError(
                f"tar_shards: {path} is gone; bring it back, then go on with resume="
            ) from None
        if stamp(file.descriptor) != self._stamps[shard].tolist():  # 1 us; after the reading
            raise ConfigError(
                f"tar_shards: {path} changed while it was being read; start a new run on it, or"
                " bring the old one back and go on with resume="
            )
        return content, f"{os.path.basename(path)}:{self._names[index]}"


@lru_cache(maxsize=64)  # open files per process; what another thread still reads stays open
def _opened(path: str, version: str) -> File:
    """`version` changes with the index: a new source opens a shard that was replaced anew."""
    return File(path)


def _shards(path: str) -> list[Path]:
    """The files that `path` means, in the order of the pattern, those of a glob sorted."""
    check_local(path, "tar_shards.path")
    shards = []
    for pattern in expand_braces(os.path.expanduser(path)):
        if glob.has_magic(pattern) and not os.path.exists(pattern):
            shards += [
                Path(found).absolute() for found in sorted(glob.glob(pattern, recursive=True))
            ]
        else:
            shards.append(existing_file(pattern, "tar_shards.path"))
    if not shards:
        raise ConfigError(
            f"tar_shards.path: no file fits {path!r}; check the folder and the pattern"
        )
    return shards


def _build(
    shards: list[Path],
    label: str | None,
    tags: str | None,
    separator: str,
    words: Path | None,
    folder: Path,
) -> dict[str, Any]:
    """Writes columns `shards`, `names`, `places` (shard, offset, size) and `labels` or `tags`."""
    target = "labels" if label else "tags" if tags else None
    names = read_names(words, "tar_shards.vocabulary") if words else None
    targets = TargetWriter(folder, target, names, "tar_shards")
    places, members = ColumnWriter(folder / "places.npy", "int64"), bytes_writer(folder, "names")
    write_strings(folder, "shards", map(str, shards))
    with counter(f"indexing {len(shards)} tar files") as progress:
        for number, shard in enumerate(shards):
            before = progress.count
            for image, value in samples(shard, label or tags):
                places.extend([number, image.offset, image.size])
                members.add(os.fsencode(image.name))
                where = f"{image.name} in {shard}"
                targets.add(split_tags(value, separator) if tags else value, where)
                progress.add()
            if progress.count == before:
                raise ConfigError(
                    f"tar_shards: no images in {shard}, looked for {', '.join(EXTENSIONS)}"
                )
    places.close()
    members.close()
    return targets.finish()
