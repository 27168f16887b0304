"""Shards against files: CPU time from an index to the bytes of an image, everything warm.

    CIFAR10=... PHOTOS=... python benchmarks/shards.py        folders of images

`packed` (shards of the folder, built here), `image_folder` (its file opened and read) and
`tar_shards` give whole samples with label and name; `open().read()` on a list of paths is no
source. "place and bytes" is what packed does without names, labels and checksums; the last line is
the checksum of an average image. Random order, one process, rounds in turn; the factor is the
median of the rounds.

2026-11-22, 2-core Xeon, Python 3.11, busy with other work, in us per image (time / packed's):

                 packed   image_folder   tar_shards   open().read()   place and bytes   checksum
    CIFAR-10       10.9    15.4 (1.39)  13.3 (1.22)      7.7 (0.68)        3.0 (0.28)        0.4
    photographs    47.4    35.3 (0.69)  28.6 (0.61)     25.1 (0.51)       11.0 (0.24)       23.9

On a warm local disk shards win nothing against decoding (1,350 us for a photograph).
"""

import argparse
import os
import random
import statistics
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from vissl_lite.shards.build import build
from vissl_lite.shards.convert import Settings
from vissl_lite.sources.image_folder import ImageFolder
from vissl_lite.sources.packed import Packed
from vissl_lite.sources.tar_shards import TarShards

READS = 4000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    folders = [os.environ[key] for key in ("CIFAR10", "PHOTOS") if key in os.environ]
    if not folders:
        sys.exit("set CIFAR10 or PHOTOS to a folder of images")
    for folder in folders:
        with tempfile.TemporaryDirectory() as work:
            os.environ["VISSL_LITE_CACHE"] = work
            compare(Path(folder), Path(work), rounds)


def compare(folder: Path, work: Path, rounds: int) -> None:
    source = ImageFolder(str(folder))
    files = [source[i].image for i in range(len(source))]
    size = sum(map(os.path.getsize, files)) // len(files)
    ways = readers(source, files, work)
    chosen = random.Random(0).choices(range(len(files)), k=READS)
    for read in ways.values():
        cpu_us(read, chosen)
    rows = [{name: cpu_us(read, chosen) for name, read in ways.items()} for _ in range(rounds)]
    print(f"{folder}: {len(files):,} images, {size:,} bytes on average")
    for name in ways:
        us = statistics.median(row[name] for row in rows)
        factor = statistics.median(row[name] / row["packed"] for row in rows)
        print(f"  {name:16} {us:7.1f} us {1e6 / us:9,.0f} /s   {factor:5.2f}x the time of packed")
    content = os.urandom(size)
    print(f"  {'checksum':16} {cpu_us(lambda _: zlib.crc32(content), chosen):7.1f} us")


def readers(
    source: ImageFolder, files: list[str], work: Path
) -> dict[str, Callable[[int], object]]:
    """Each takes an index and reads the bytes of that image."""
    build(source, {"name": "image_folder"}, Settings(), work / "shards", workers=1, max_broken=0)
    with tarfile.open(work / "all.tar", "w") as tar:
        for number, file in enumerate(files):
            tar.add(file, f"{number:06d}.jpg")
    packed, tar = Packed(str(work / "shards")), TarShards(str(work / "all.tar"))

    def opened(path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def place_and_bytes(index: int) -> bytes:
        return packed._shards.read(*packed._places.read(6 * index, 6 * index + 3).tolist())

    assert all(packed[i].image == tar[i].image == opened(files[i]) for i in range(50))
    return {
        "packed": lambda i: packed[i].image,
        "image_folder": lambda i: opened(source[i].image),
        "tar_shards": lambda i: tar[i].image,
        "open().read()": lambda i: opened(files[i]),
        "place and bytes": place_and_bytes,
    }


def cpu_us(read: Callable[[int], object], indices: list[int]) -> float:
    """Microseconds of CPU time for each read."""
    start = time.process_time()
    for index in indices:
        read(index)
    return (time.process_time() - start) / len(indices) * 1e6


if __name__ == "__main__":
    main()
