"""Images in a few large files, built by `vissl-lite shards build`."""

import zlib
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from vissl_lite import SOURCES
from vissl_lite.data.batch import Sample
from vissl_lite.data.decode import BrokenImage
from vissl_lite.errors import ConfigError
from vissl_lite.io import cache_folder
from vissl_lite.schema import above, at_least
from vissl_lite.sources._blocks import Blocks
from vissl_lite.sources._columns import Column, Ragged, Strings
from vissl_lite.sources._packed import (
    JOURNAL,
    MANIFEST,
    ROW,
    LocalShards,
    data_name,
    parse_manifest,
)
from vissl_lite.sources._remote import RemoteShards, Unreachable, check_scheme, scheme
from vissl_lite.sources._source import IndexedSource, existing

GIB, KIB = 1 << 30, 1 << 10
GO_ON = "check the server, then go on with resume="


@SOURCES.register("packed")
class Packed(IndexedSource):
    """Shards of `vissl-lite shards build`, on this machine, over HTTP or on S3; any order.

    Every image is one read at its offset, and its checksum is verified (CRC-32: 25 us for 110 KB).
    Encoded images come as bytes, raw ones as read-only arrays [H, W, 3]. Of remote shards the
    columns (places, names, labels: some 60 bytes per image) are copied once; images are
    read in blocks, which a cache on disk keeps, shared by all processes and shard folders of the
    machine. A server that fails is asked six times within 8 s.

    Args:
        path: the folder, or its address: https://host/folder, s3://bucket/folder (with boto3).
        cache_gib: GiB of blocks that are kept; those that were not read for longest go first.
            $VISSL_LITE_CACHE/blocks is the place.
        block_kib: KiB of a block. Larger ones mean fewer requests where images are read in order,
            or where the cache holds them all; smaller ones less traffic where it does not.

    Attributes:
        manifest: what shards.json says.
        columns: folder of the columns on this machine.

    Raises:
        ConfigError: no shards there, or unfinished ones; a file is missing or cut off; the server
            cannot be reached; the shards were replaced by others while they were being read.
        BrokenImage: by `source[i]`, where the checksum of an image does not fit.
    """

    def __init__(
        self,
        path: str,
        cache_gib: Annotated[float, above(0)] = 16.0,
        block_kib: Annotated[int, at_least(1)] = 256,
    ):
        self.path = path.rstrip("/")
        limit, size = int(cache_gib * GIB), block_kib * KIB
        self._shards = _shards(self.path, limit, size)
        try:
            manifest = self.manifest = parse_manifest(self._shards.manifest(), f"packed: {path}")
            folder = self.columns = self._shards.columns(manifest)
        except Unreachable as error:
            raise ConfigError(f"packed: {error}; check path and server") from None
        target = "labels" if manifest.labels else None
        notes = {"num_classes": manifest.num_classes, "named": manifest.named, "target": target}
        super().__init__(folder, notes)
        self._tags = Ragged(folder, "tags") if manifest.tags else None
        self._places, self._names = Column(folder / "places.npy"), Strings(folder, "names")

    def __len__(self) -> int:
        return self.manifest.images

    def sample(self, index: int) -> Sample:
        try:
            sample = super().sample(index)
        except FileNotFoundError as error:  # removed, or replaced by those of other shards
            self._check_same()
            raise ConfigError(f"packed: {error.filename} is gone; bring it back") from None
        if sample.label == -1:
            sample.label = None
        return sample

    def image(self, index: int) -> tuple[bytes | np.ndarray, str]:
        name = self._names[index]
        row = self._places.read(ROW * index, ROW * index + ROW).tolist()
        content = self._content(row, name)
        if self.manifest.raw:
            return np.frombuffer(content, np.uint8).reshape(row[5], row[4], 3), name
        return content, name

    def _content(self, row: list[int], name: str) -> bytes:
        """The bytes of an image, read again where they do not fit their checksum."""
        number, offset, size, crc, *_ = row
        for _ in range(2):
            try:
                content = self._shards.read(number, offset, size)
            except Unreachable as error:
                self._check_same()
                raise ConfigError(f"packed: {error}; {GO_ON}") from None
            if len(content) == size and zlib.crc32(content) == crc:
                return content
            self._shards.forget(number, offset, size)
        self._check_same()
        raise BrokenImage(
            name,
            f"its bytes in {self.path}/{data_name(number)} do not fit their checksum"
            f" (all of those: vissl-lite shards verify {self.path})",
        )

    def _check_same(self) -> None:
        """
        Raises:
            ConfigError: under the path lie other shards than those that were opened.
        """
        try:
            now = parse_manifest(self._shards.manifest(), f"packed: {self.path}").digest
        except Unreachable as error:
            raise ConfigError(f"packed: {error}; {GO_ON}") from None
        except OSError:
            raise ConfigError(
                f"packed: {self.path}/{MANIFEST} is gone while the shards are being read; bring"
                " them back, then go on with resume="
            ) from None
        if now != self.manifest.digest:
            raise ConfigError(
                f"packed: {self.path} was replaced by other shards while it was being read; start"
                " a new run on them, or bring the old ones back"
            )


def _shards(path: str, limit: int, size: int) -> Any:
    """A reader of the shards at `path`.

    Raises:
        ConfigError: there are none.
    """
    if scheme(path) not in ("", "file"):
        check_scheme(path, "packed.path")
        return RemoteShards(path, Blocks(cache_folder() / "blocks", limit, size))
    folder: Path = existing(path.removeprefix("file://"), "packed.path")
    if not (folder / MANIFEST).is_file():
        state = "is not finished" if (folder / JOURNAL).exists() else f"has no {MANIFEST}"
        raise ConfigError(
            f"packed.path: {folder} {state}; run: vissl-lite shards build SOURCE --out {folder}"
        )
    return LocalShards(folder)
