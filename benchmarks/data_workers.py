"""What workers cost: memory over an epoch of ten million images, and the time until they work.

    CIFAR10=FOLDER python benchmarks/data_workers.py [--minutes 20] [--images 10000000]
        [--workers 2] [--every 5] [--plot data_workers.png] [--start-workers 8]
        [--only epoch,start]

epoch   A list of so many lines, all of them files of FOLDER; its images are decoded and cut to one
        view of 8 px, for as much of the epoch as fits into --minutes. Private memory (USS: what
        would be free if the process ended), PSS (with its share of shared pages) and RSS of every
        worker, and of the process that trains, are read again and again. Printed: the first and
        the last tenth of the readings, and the slope of a line through those after the first tenth.
        The plot is a PNG where matplotlib is installed, else an SVG.
start   Time from asking for the first batch to having it, in a fresh process for each way to start
        workers, then again in the same process, as an evaluation would; memory per worker then.
        "ours" is what `Loader` does: forkserver, modules preloaded.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

SIZE, BATCH = 8, 512  # pixels per side of the view; images per batch
WAYS = {"ours": "ours", "forkserver": "forkserver, nothing preloaded", "spawn": "spawn"}
MEMORY = {"private": ("Private_Clean:", "Private_Dirty:"), "PSS": ("Pss:",), "RSS": ("Rss:",)}
Reading = dict[str, float]  # kind of memory -> MB


def memory(pid: int) -> Reading:
    """MB of a process, of every kind."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kb = {name: int(value) for name, value, *_ in map(str.split, lines)}
    return {kind: sum(kb[key] for key in keys) / 1000 for kind, keys in MEMORY.items()}


def worker_pids() -> list[int]:
    import multiprocessing

    return sorted(process.pid for process in multiprocessing.active_children())


def write_list(file: Path, folder: Path, count: int) -> None:
    """`count` paths of images below `folder`, each as often as it takes."""
    paths = [os.path.relpath(path, folder) for path in sorted(folder.glob("train/*/*"))]
    if not paths:
        sys.exit(f"{folder}/train/<class> has no images; set CIFAR10 to the folder of CIFAR-10")
    with open(file, "w") as stream:
        stream.writelines(f"{path}\n" for path in islice(cycle(paths), count))


def make_loader(file: Path, folder: Path, workers: int) -> Any:
    """One epoch of batches, with the list's index built."""
    import torch

    from vissl_lite.data.dataset import ViewDataset
    from vissl_lite.data.fast import FastViews
    from vissl_lite.data.loader import Loader
    from vissl_lite.data.sampler import Order, StepSampler
    from vissl_lite.data.views import Views
    from vissl_lite.plugins import load_entries
    from vissl_lite.sources.file_list import FileList

    load_entries()
    torch.set_num_threads(1)
    source = FileList(str(file), root=str(folder))
    crop = {"size": SIZE, "transforms": [{"name": "random_resized_crop"}]}
    views = FastViews(Views.build([crop]), on_device=False)
    dataset = ViewDataset(source, views, Order.of(source, 0), seed=0)
    sampler = StepSampler(len(source), BATCH, len(source) // BATCH, start=0, rank=0, world=1)
    return Loader(dataset, sampler, torch.device("cpu"), workers)


# ---------------------------------------------------------------- an epoch


def epoch(options: argparse.Namespace, file: Path, folder: Path) -> None:
    """Prints a table, writes a plot."""
    loader = make_loader(file, folder, options.workers)
    images, readings, seconds = [], [], 60 * options.minutes
    for done, reading in watched(loader, seconds, options.every):
        images.append(done)
        readings.append(reading)
    rate = (images[-1] - images[0]) / (options.every * (len(images) - 1))
    print(
        f"\n{images[-1]:,} of {options.images:,} images by {options.workers} workers, about"
        f" {rate:,.0f} images/s, {len(images)} readings"
    )
    print(f"{'MB':22}{'first tenth':>12}{'last tenth':>12}{'largest':>10}  per million images")
    tenth = max(1, len(images) // 10)
    for kind in MEMORY:
        for p, process in enumerate(names(options.workers)):
            values = [reading[p][kind] for reading in readings]
            first, last = statistics.fmean(values[:tenth]), statistics.fmean(values[-tenth:])
            slope, error = line(images[tenth:], values[tenth:])
            print(
                f"{kind:8} {process:13}{first:12.1f}{last:12.1f}{max(values):10.1f}"
                f"  {slope:+.3f} ± {error:.3f}"
            )
    print(f"plot: {plot(options.plot, images, readings, names(options.workers))}")


def names(workers: int) -> list[str]:
    return ["training", *(f"worker {i}" for i in range(workers))]


def watched(loader: Any, seconds: float, every: float) -> Iterator[tuple[int, list[Reading]]]:
    """(images so far, memory of this process and of every worker), about every `every` seconds."""
    start = last = time.perf_counter()
    for step, _ in enumerate(loader, 1):
        now = time.perf_counter()
        if now - last >= every:
            last = now
            yield step * BATCH, [memory(pid) for pid in (os.getpid(), *worker_pids())]
        if now - start >= seconds:
            return


def line(images: list[int], values: list[float]) -> tuple[float, float]:
    """Slope per million images by least squares, and its standard error."""
    x = [n / 1e6 for n in images]
    slope, offset = statistics.linear_regression(x, values)
    rest = sum((y - offset - slope * a) ** 2 for a, y in zip(x, values))
    spread = sum((a - statistics.fmean(x)) ** 2 for a in x)
    return slope, (rest / (len(x) - 2) / spread) ** 0.5


# ---------------------------------------------------------------- its plot


def plot(file: Path, images: list[int], readings: list[list[Reading]], of: list[str]) -> Path:
    """Private memory and PSS over images; returns the file, which may have got another ending."""
    x = [n / 1e6 for n in images]
    curves = {
        f"{process}, {kind}": [reading[p][kind] for reading in readings]
        for p, process in enumerate(of)
        if p  # the workers
        for kind in ("private", "PSS")
    }
    try:
        import matplotlib
    except ImportError:
        file = file.with_suffix(".svg")
        file.write_text(svg(x, curves))
        return file
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name, values in curves.items():
        axes.plot(x, values, label=name)
    axes.set(xlabel="million images", ylabel="MB", ylim=(0, None))
    axes.legend()
    figure.savefig(file, dpi=150, bbox_inches="tight")
    return file


def svg(x: list[float], curves: dict[str, list[float]]) -> str:
    """The same by hand."""
    width, height, left, base = 700, 400, 60, 360
    top = 1.2 * max(map(max, curves.values()))
    right, parts = width - 20, []
    for i, (name, values) in enumerate(curves.items()):
        points = " ".join(
            f"{left + (right - left) * a / x[-1]:.1f},{base - (base - 20) * y / top:.1f}"
            for a, y in zip(x, values)
        )
        colour = f"hsl({360 * i // len(curves)} 70% 40%)"
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        parts.append(f'<text x="{left + 10}" y="{35 + 18 * i}" fill="{colour}">{name}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        ' font-family="sans-serif" font-size="13">'
        f'<path d="M{left} 20V{base}H{right}" fill="none" stroke="black"/>'
        f'<text x="5" y="25">{top:.0f} MB</text><text x="5" y="{base}">0 MB</text>'
        f'<text x="{left}" y="{base + 20}">0</text>'
        f'<text x="{right - 130}" y="{base + 20}">{x[-1]:.2f} million images</text>'
        f"{''.join(parts)}</svg>"
    )


# ---------------------------------------------------------------- start


def start(options: argparse.Namespace, file: Path) -> None:
    """Prints a table, each row from a process of its own."""
    print(f"\n{options.start_workers} workers{'first batch':>26}{'again':>9}", end="")
    print("".join(f"{f'{kind} MB':>13}" for kind in MEMORY) + "  (per worker)")
    for way in WAYS:
        command = [sys.executable, "-W", "ignore", __file__, "--start", way, "--list", str(file)]
        command += ["--start-workers", str(options.start_workers)]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        print(f"{WAYS[way]:29}{found['first']:7.2f} s{found['again']:7.2f} s", end="")
        print("".join(f"{found[kind]:13.1f}" for kind in MEMORY), flush=True)


def started(way: str, file: Path, folder: Path, workers: int) -> dict[str, float]:
    """Seconds to the first batch, twice, and the mean memory of a worker."""
    import multiprocessing

    from vissl_lite.data import workers as module

    if way != "ours":
        context = multiprocessing.get_context(way)
        module.forkserver = lambda *_: context
    loader, found = make_loader(file, folder, workers), {}
    for which in ("first", "again"):
        began = time.perf_counter()
        batches = iter(loader)
        next(batches)
        found[which] = time.perf_counter() - began
        time.sleep(2)  # all of them have imported what they need
        readings = [memory(pid) for pid in worker_pids()]
        del batches
    means = {kind: statistics.fmean(r[kind] for r in readings) for kind in MEMORY}
    return found | means


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--images", type=int, default=10_000_000, help="lines of the list")
    parser.add_argument("--workers", type=int, default=2, help="of the epoch")
    parser.add_argument("--every", type=float, default=5, help="seconds between readings")
    parser.add_argument("--plot", type=Path, default=Path("data_workers.png"))
    parser.add_argument("--start-workers", type=int, default=8)
    parser.add_argument("--only", default="start,epoch")
    parser.add_argument("--start", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--list", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = Path(os.environ.get("CIFAR10", "datasets/cifar10")).resolve()
    if options.start:
        print(json.dumps(started(options.start, options.list, folder, options.start_workers)))
        return
    compare(options, folder)


def compare(options: argparse.Namespace, folder: Path) -> None:
    from _data_cells import about

    print(about())
    with tempfile.TemporaryDirectory() as kept:
        os.environ["VISSL_LITE_CACHE"] = kept
        file = Path(kept) / "paths.txt"
        write_list(file, folder, options.images)
        began = time.perf_counter()
        make_loader(file, folder, 0)  # for the index, which a run has from its first start on
        print(f"{options.images:,} lines, index built in {time.perf_counter() - began:.1f} s")
        if "start" in options.only:
            start(options, file)
        if "epoch" in options.only:
            epoch(options, file, folder)


if __name__ == "__main__":
    main()
