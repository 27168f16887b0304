"""Hashtags out of millions of captions: `hashtags build` against a plain Python loop.

    python benchmarks/hashtags_build.py [--captions 10_000_000] [--tags 200_000]

Writes captions of about 100 bytes with three tags each, drawn from `--tags` tags in six scripts by
Zipf's law, as Parquet (10 million are 1 GB of text). With 20,000 tags, 100,000 captions hold most
of them, so that memory shows what the number of captions adds. Then, each in a process of its own:

    loop     the rules on one caption after the other: `counter.update(tags_in(caption))`
    find     the part of build that finds and counts tags, in one process, checked against the loop
    build    the whole command, images.parquet and all, on 1 process and on all cores

CPU time is that of all processes, without the imports of the first. Memory is the peak of the sum
over all processes, PSS of /proc/PID/smaps_rollup (shared pages are divided among those who share
them), for N captions and for N / 10.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vissl_lite.hashtags.build import Rules, build
from vissl_lite.hashtags.lexicon import Lexicon
from vissl_lite.hashtags.passes import Find
from vissl_lite.hashtags.read import Captions, Columns
from vissl_lite.hashtags.spill import Spill
from vissl_lite.hashtags.tags import tags_in

PER_CAPTION, GROUP = 3, 1 << 17
SCRIPTS = ("{}", "{}", "{}", "Müller{}", "東京{}", "привет{}", "हिन्दी{}", "🐻{}")
TEXT = "a photo of this day at the sea where nobody was but the birds "
COLUMNS = Columns("image", "caption", None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--captions", type=int, default=10_000_000)
    parser.add_argument("--tags", type=int, default=200_000, help="distinct ones")
    parser.add_argument("--job", choices=tuple(JOBS), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(timed(JOBS[options.job], options.file)))
        return
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for count in (options.captions // 10, options.captions):
            compare(Path(folder).absolute() / f"{count}.parquet", count, options.tags)


def compare(file: Path, count: int, tags: int) -> None:
    size = write_captions(file, count, tags)
    print(f"\n{count:,} captions, {size / 1e6:,.0f} MB of text, load {os.getloadavg()[0]:.1f}")
    results = {job: in_new_process(job, file) for job in JOBS}
    assert results["loop"]["digest"] == results["find"]["digest"], "other counts than the loop"
    print(f"{results['loop']['tags']:,} distinct tags; the same counts from loop and find")
    for job, found in results.items():
        wall, cpu = (f"{count / found[key]:9,.0f}" for key in ("seconds", "cpu"))
        print(
            f"{job:12} {found['seconds']:7.1f} s = {wall} captions/s, {found['cpu']:7.1f} s of CPU"
            f" = {cpu} captions/s, {results['loop']['cpu'] / found['cpu']:4.1f}x the loop;"
            f" peak {found['peak'] / 1e6:5,.0f} MB"
        )


def write_captions(file: Path, count: int, tags: int) -> int:
    rng = np.random.default_rng(0)
    weight_V = 1 / np.arange(1, tags + 1)
    cumulative_V = np.cumsum(weight_V / weight_V.sum())
    names = [SCRIPTS[i % len(SCRIPTS)].format(f"tag{i}") for i in range(tags)]
    schema, size = pa.schema([("image", pa.string()), ("caption", pa.string())]), 0
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, count, GROUP):
            rows = min(GROUP, count - start)
            drawn = np.searchsorted(cumulative_V, rng.random((rows, PER_CAPTION))).tolist()
            captions = [TEXT + " ".join(f"#{names[tag]}" for tag in row) for row in drawn]
            images = [f"train/{start + i:09d}.jpg" for i in range(rows)]
            size += sum(len(caption.encode()) for caption in captions)
            writer.write_table(pa.table([images, captions], schema=schema))
    return size


# ---------------------------------------------------------------- the jobs


def loop(file: Path) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    for batch in pq.ParquetFile(file).iter_batches(GROUP, columns=["caption"]):
        for caption in batch["caption"].to_pylist():
            counts.update(tags_in(caption))
    return summary(counts)


def find(file: Path) -> dict[str, Any]:
    work = Find(Lexicon())
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        spill = Spill(Path(folder) / "spill")
        for images, texts in Captions([file], COLUMNS):
            spill.add(images, work(texts))
        spill.close()
        return summary(dict(spill.counts.sorted()))


def summary(counts: dict[str, int]) -> dict[str, Any]:
    text = repr(sorted(counts.items())).encode()
    return {"tags": len(counts), "digest": hashlib.sha256(text).hexdigest()}


def build_on(processes: int, file: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        build(Captions([file], COLUMNS), Rules(), Path(folder) / "out", processes)
    return {}


JOBS = {
    "loop": loop,
    "find": find,
    "build on 1": lambda file: build_on(1, file),
    "build on all": lambda file: build_on(len(os.sched_getaffinity(0)), file),
}


# ---------------------------------------------------------------- time and memory


def timed(job: Callable[[Path], dict[str, Any]], file: Path) -> dict[str, Any]:
    """The job's wall seconds, and CPU seconds without those of its children."""
    started, cpu = time.perf_counter(), time.process_time()
    found = job(file)
    return {
        **found,
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - cpu,
    }


def in_new_process(job: str, file: Path) -> dict[str, Any]:
    """What the job prints, with the CPU time of its children, and the peak of all memory."""
    command = [sys.executable, __file__, "--job", job, "--file", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    peak, cpu, stop = [0], {}, threading.Event()
    watcher = threading.Thread(target=watch, args=(process.pid, peak, cpu, stop))
    watcher.start()
    out, _ = process.communicate()
    stop.set()
    watcher.join()
    assert process.returncode == 0, f"{job} failed"
    found = json.loads(out)
    found["cpu"] += sum(seconds for pid, seconds in cpu.items() if pid != process.pid)
    return {**found, "peak": peak[0]}


def watch(root: int, peak: list[int], cpu: dict[int, float], stop: threading.Event) -> None:
    while not stop.wait(0.1):
        processes = family(root)
        peak[0] = max(peak[0], sum(map(pss, processes)))
        cpu.update({pid: max(cpu.get(pid, 0), cpu_seconds(pid)) for pid in processes})


def family(root: int) -> list[int]:
    """A process and all that descend from it."""
    found = [root]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:  # it has just ended
                continue
    return found


def pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system


if __name__ == "__main__":
    main()
