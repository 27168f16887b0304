"""Ranges of remote files: HTTP, and S3 where boto3 is installed. And shards read by them."""

import hashlib
import os
import time
import zlib
from collections.abc import Callable
from functools import lru_cache, partial
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.sources._blocks import Blocks
from vissl_lite.sources._index import prepared
from vissl_lite.sources._packed import MANIFEST, PIECE, Manifest, data_name

TRIES = 6
FIRST_PAUSE_S = 0.25  # doubled after every try: 8 s in all
TIMEOUT_S = 60.0  # for an answer, of one try
PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses after which a later try may succeed


class Unreachable(Exception):
    """A range could not be fetched; the text says from where and why."""


class _Passing(Exception):
    """A failure that may be over at the next try."""


def scheme(address: str) -> str:
    """ "https" of https://host/path, "" of a path."""
    return urlsplit(address).scheme.lower() if "://" in address else ""


def check_scheme(address: str, place: str) -> None:
    """
    Raises:
        ConfigError: there is no way to read it, or boto3 is missing.
    """
    if (name := scheme(address)) not in FETCHERS:
        known = ", ".join(["file", *FETCHERS])
        hint = did_you_mean(name, FETCHERS) or ";"
        raise ConfigError(f"{place}: {name}:// is an unknown scheme{hint} known: {known}")
    if ".." in address.split("/"):
        raise ConfigError(f"{place}: '..' in {address}; write the address without it")
    if name == "s3":
        try:
            import boto3  # noqa: F401  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ConfigError(f"{place}: s3 needs boto3: pip install boto3") from None


def fetch(address: str, start: int = 0, stop: int | None = None) -> bytes:
    """Bytes start..stop of a file, or all of it; tries again after what may be over soon.

    Raises:
        Unreachable: the server says no, or nothing but failures for `TRIES` times.
    """
    once, pause = FETCHERS[scheme(address)], FIRST_PAUSE_S
    for attempt in range(1, TRIES + 1):
        try:
            content = once(address, start, stop)
            if stop is not None and len(content) != stop - start:
                raise _Passing(f"{len(content)} bytes came instead of {stop - start}")
            return content
        except _Passing as error:
            reason = f"{error}, {attempt} times"
        if attempt < TRIES:
            time.sleep(pause)
            pause *= 2
    raise Unreachable(f"{address} cannot be fetched ({reason})")


def _over_http(address: str, start: int, stop: int | None) -> bytes:
    headers = {} if stop is None else {"Range": f"bytes={start}-{stop - 1}"}
    try:
        with urlopen(Request(address, headers=headers), timeout=TIMEOUT_S) as answer:
            if stop is not None and answer.status != 206:
                raise Unreachable(f"{address} cannot be read in parts: its server knows no ranges")
            return answer.read()
    except HTTPError as error:
        raise _failure(address, error.code, str(error)) from None
    except (OSError, HTTPException) as error:  # no connection, or one that broke off
        raise _Passing(str(error) or type(error).__name__) from None


def _over_s3(address: str, start: int, stop: int | None) -> bytes:
    parts = urlsplit(address)
    given = {} if stop is None else {"Range": f"bytes={start}-{stop - 1}"}
    try:
        key = address.split("/", 3)[3]  # as it stands: '?' and '#' may be part of a key
        answer = _s3_client(os.getpid()).get_object(Bucket=parts.netloc, Key=key, **given)
        return answer["Body"].read()
    except Exception as error:  # botocore makes its classes while it runs
        metadata = getattr(error, "response", {}).get("ResponseMetadata", {})
        raise _failure(address, metadata.get("HTTPStatusCode", 503), str(error)) from None


def _failure(address: str, status: int, reason: str) -> Exception:
    if status in PASSING:
        return _Passing(reason)
    return Unreachable(f"{address} cannot be fetched ({reason})")


@lru_cache(maxsize=1)
def _s3_client(process: int) -> Any:
    """One client for each process: a forked one must not share connections."""
    import boto3  # pyright: ignore[reportMissingImports]

    return boto3.client("s3")


FETCHERS: dict[str, Callable[[str, int, int | None], bytes]] = {
    "http": _over_http,
    "https": _over_http,
    "s3": _over_s3,
}


class RemoteShards:
    """Reads shards of an address; columns are copied once, data go through a cache of blocks."""

    def __init__(self, address: str, blocks: Blocks):
        self.address, self.blocks = address, blocks
        self._key, self._sizes = "", [0]

    def manifest(self) -> bytes:
        return fetch(f"{self.address}/{MANIFEST}")

    def columns(self, manifest: Manifest) -> Path:
        """A folder of this machine with the columns, fetched by the first process that asks."""
        self._key = hashlib.sha256(f"{self.address} {manifest.digest}".encode()).hexdigest()[:24]
        self._sizes = [size for size, _ in manifest.data]
        identity, state = {"address": self.address}, {"manifest": manifest.digest}
        return prepared("packed", identity, state, partial(self._copy, manifest))[0]

    def _copy(self, manifest: Manifest, folder: Path) -> dict[str, Any]:
        for name, (size, crc) in manifest.columns.items():
            address, found = f"{self.address}/{manifest.folder}/{name}", 0
            with open(folder / name, "wb") as file:
                for start in range(0, size, PIECE):
                    piece = fetch(address, start, min(start + PIECE, size))
                    found = zlib.crc32(piece, found)
                    file.write(piece)
            if found != crc:
                raise ConfigError(
                    f"packed: {address} does not fit its checksum; upload or build it again"
                )
        return {}

    def read(self, number: int, offset: int, size: int) -> bytes:
        address, end = f"{self.address}/{data_name(number)}", self._sizes[number]
        key, stop = f"{self._key}-{number:05d}", min(offset + size, end)
        return self.blocks.read(key, offset, stop, end, partial(fetch, address))

    def forget(self, number: int, offset: int, size: int) -> None:
        """Drops from the cache what may be damaged there."""
        self.blocks.forget(f"{self._key}-{number:05d}", offset, offset + size)
