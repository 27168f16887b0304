"""The one PathManager, for weights: from this machine, over HTTP, from S3 where boto3 is installed.

And writing that a kill or a power failure leaves whole. Images are read by the sources, from local
paths.
"""

import functools
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vissl_lite.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from iopath.common.file_io import PathManager


def cache_folder() -> Path:
    """Where downloads and indexes are kept: $VISSL_LITE_CACHE, or ~/.cache/vissl_lite."""
    return Path(os.environ.get("VISSL_LITE_CACHE") or "~/.cache/vissl_lite").expanduser()


def local_path(uri: str | Path) -> Path:
    """A file on this machine with the content of `uri`; downloads it once.

    Args:
        uri: a path, or `file://`, `http://`, `https://`, `s3://` (with boto3).

    Raises:
        ConfigError: unknown scheme, or the download failed.
    """
    if (scheme := _scheme(uri)) in ("", "file"):
        return Path(str(uri).removeprefix("file://")).expanduser()
    manager = _manager(scheme)
    # iopath's own cache leaves the host out of the file name and follows ".." in the URL
    folder = cache_folder() / "remote" / hashlib.sha256(str(uri).encode()).hexdigest()[:24]
    if ".." in str(uri).split("/"):
        raise ConfigError(f"{uri}: '..' in an address; write the address without it")
    try:
        return Path(manager.get_local_path(str(uri), cache_dir=str(folder)))
    except OSError as error:
        raise ConfigError(f"{uri}: cannot be fetched ({error}); check the address") from error


def _scheme(uri: str | Path) -> str:
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", str(uri))
    return match[1].lower() if match else ""


@functools.cache
def _manager(scheme: str) -> "PathManager":
    """A PathManager that knows `scheme`; iopath itself takes an unknown scheme for a local path."""
    from iopath.common.file_io import HTTPURLHandler, PathManager

    handlers = {"http": HTTPURLHandler, "https": HTTPURLHandler, **_s3()}
    if scheme not in handlers:
        known = ", ".join(["file", *handlers])
        extra = "" if "s3" in handlers else "; s3 needs: pip install boto3"
        close = did_you_mean(scheme, handlers) or ";"
        raise ConfigError(f"{scheme}://: unknown scheme{close} known: {known}{extra}")
    manager = PathManager()
    manager.register_handler(handlers[scheme]())
    return manager


def _s3() -> dict[str, type]:
    try:
        import boto3  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        return {}
    from iopath.common.s3 import S3PathHandler

    return {"s3": S3PathHandler}


def replace_text(file: Path, text: str) -> None:
    """The file has its old content or the new one, whenever the process is killed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    tmp = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with tmp.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.replace(tmp, file)
    sync(file.parent)


def sync(path: Path) -> None:
    """What was written to a file, or which files are in a folder, survives a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
