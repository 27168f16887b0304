"""Reads all shards of a folder and compares them with their checksums."""

from collections.abc import Iterator

from vissl_lite.data.decode import BrokenImage
from vissl_lite.progress import counter
from vissl_lite.sources._packed import checksum
from vissl_lite.sources.packed import Packed


def damages(path: str) -> Iterator[str]:
    """A sentence for every column and every image that does not fit its checksum.

    Args:
        path: folder or address of complete shards.

    Raises:
        ConfigError: there are none, or a file is missing or of another size.
    """
    source = Packed(path)
    for name, expected in source.manifest.columns.items():
        if checksum(source.columns / name) != expected:
            yield f"{source.columns / name}: does not fit its checksum; build the shards again"
    with counter(f"verifying {path}", total=len(source)) as progress:
        for index in range(len(source)):
            try:
                source[index]
            except BrokenImage as error:
                yield str(error)
            progress.add()
