"""Ten million image paths: how fast a prepared index opens, and what each worker pays for it.

    python benchmarks/source_index.py

Writes a list of paths, lets `file_list` index it, then starts a fresh process for each way to hold
the paths: the source on its index, a memory map of the same index, a Python list. Each opens
the paths and reads the same 100,000 at random; its private memory (USS: private pages in
/proc/self/smaps_rollup) is compared with that before. "read" is a whole `source[i]` for the index.

2026-11-21, 2-core Xeon, Python 3.11, busy with other work (read times and building vary by 2x):

    10,000,000 paths, 400 MB of text; index built in 10 to 24 s, 470 MB on disk
    index        opens in   0.0054 s   private     4.0 MB   read 15.04 us
    memory map   opens in   0.0060 s   private   474.0 MB   read 25.76 us
    python list  opens in   5.5023 s   private  1048.8 MB   read  0.39 us
    opening time: python list / index = 1,013x; private memory: 262x

Required: the index opens in under 1 s and adds less than 100 MB.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import Any

TOUCHED = 100_000
KINDS = ("index", "memory map", "python list")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--paths", type=int, default=10_000_000)
    parser.add_argument("--worker", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--list", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(options.worker, options.list)))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VISSL_LITE_CACHE"] = folder
        compare(Path(folder) / "paths.txt", options.paths)


def compare(file: Path, count: int) -> None:
    from vissl_lite.sources.file_list import FileList

    write_paths(file, count)
    started = time.perf_counter()
    assert len(FileList(str(file))) == count
    built = time.perf_counter() - started
    size = sum(f.stat().st_size for f in file.parent.rglob("*.npy"))
    print(f"{count:,} paths, {file.stat().st_size / 1e6:.0f} MB of text")
    print(f"index built in {built:.1f} s, {size / 1e6:.0f} MB on disk")
    results = {kind: in_new_process(kind, file) for kind in KINDS}
    for kind, result in results.items():
        print(
            "{:11}  opens in {open:8.4f} s   private {uss:7.1f} MB   read {read:5.2f} us".format(
                kind, **result
            )
        )
    for key, what in (("open", "opening time"), ("uss", "private memory")):
        ratio = results["python list"][key] / max(results["index"][key], 1e-9)
        print(f"{what}: python list / index = {ratio:,.0f}x")


def write_paths(file: Path, count: int) -> None:
    with open(file, "w") as stream:
        for i in range(count):
            stream.write(f"train/n{i // 1300:08d}/n{i // 1300:08d}_{i:08d}.JPEG\n")


def in_new_process(kind: str, file: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--worker", kind, "--list", str(file)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def worker(kind: str, file: Path) -> dict[str, float]:
    """Seconds to open, MB of private memory after the reads, microseconds per read."""
    import vissl_lite.sources.file_list  # noqa: F401  (its modules are not what is measured)

    before, started = private_bytes(), time.perf_counter()
    paths = opened_as(kind, file)
    opened = time.perf_counter()
    draw = random.Random(0).randrange
    chosen = array("q", (draw(len(paths)) for _ in range(TOUCHED)))  # itself 0.8 MB
    began = time.perf_counter()
    for i in chosen:
        paths[i]
    read = time.perf_counter() - began
    return {
        "open": opened - started,
        "uss": (private_bytes() - before) / 1e6,
        "read": read / TOUCHED * 1e6,
    }


def opened_as(kind: str, file: Path) -> Any:
    from vissl_lite.sources.file_list import FileList

    if kind == "python list":
        return file.read_text().splitlines()
    source = FileList(str(file))
    return source if kind == "index" else Mapped(source._paths)


class Mapped:
    """The index read through memory maps, the way it is not done."""

    def __init__(self, strings: Any):
        self.values, self.offsets = strings.values.array(), strings.offsets.array()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        start, stop = self.offsets[index : index + 2]
        return os.fsdecode(self.values[start:stop].tobytes())


def private_bytes() -> int:
    """USS: memory that would be free if this process ended."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


if __name__ == "__main__":
    main()
