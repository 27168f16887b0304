"""Whether both back ends mean the same: pixels, moments, and what is learnt from them.

    python benchmarks/data_meaning.py [--images 10000] [--photographs 500]
        [--only transforms,moments,knn] [--seeds 3] [--first-seed 0] [--epochs 3]
        [--per-class 2000] [--width 0.25] [--batch 128] [--precision fp32] [--at-once 2]
        [--arms reference,memory,worker] [--out DIR]

transforms
         Every transform by itself, of 40 photographs: what its forms for a worker and for a batch
         give, against that for Pillow, with the same parameters. And crops cut from JPEGs that are
         shrunk while they are decoded.
moments  Views of CIFAR-10 (simclr_cifar), of photographs (swav) and of photographs cut to squares
         of 256 px, held in memory (swav), by the reference and by every way of the fast back end:
         from the same draws (mean difference of pixels, share of equal ones), and from other draws
         of the same images. Statistics of a view: mean and standard deviation of each channel, mean
         absolute difference of horizontal neighbours, histogram of 16 bins. For each, the mean over
         all views of the difference to the reference's view of the same image, its standard error,
         and z, their ratio. With other draws z must be that of a normal number, as that of the
         reference against itself is; with the same draws nothing but the difference of the two back
         ends is left, so that z tells even tiny differences from noise. All columns of a table are
         compared with the same views, whose noise they share. The histogram: half the sum of
         absolute differences of its bins, and the root mean square of their z.
knn      SimCLR on CIFAR-10 by each arm, so many seeds each; kNN accuracy (k 200, T 0.1). Arms:
         reference; memory, the fast back end with images in memory; worker, the fast back end with
         colours by OpenCV where images are decoded. All are compared with the first.
         Unless told otherwise not the recipe pretrain/simclr/resnet18_cifar10_200ep but a small
         relative of it, for a CPU: ResNet-18 of a part of its width, few images, epochs and images
         per step, fp32. The recipe's network and images for one epoch, as in cifar10_cpu.sh:
         --width 1 --per-class 5000 --batch 64 --epochs 1 --precision bf16
         One thread per run, --at-once runs beside each other. What is done in --out is not done
         again.

Archives: `$VISSL_LITE_DATA`.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _data_cells import about, cifar_arrays, photographs, unpack_cifar
from _data_forms import forms, shrunk
from PIL import Image, ImageOps
from scipy.stats import ttest_ind

from vissl_lite.config import ViewGroup
from vissl_lite.data.batch import Sample
from vissl_lite.data.dataset import ViewDataset
from vissl_lite.data.decode import decode
from vissl_lite.data.fast import FastViews
from vissl_lite.data.resident import MemoryDataset
from vissl_lite.data.sampler import Order, Request
from vissl_lite.data.views import Views
from vissl_lite.overrides import compose

BINS = 16
ROWS = ["mean R", "mean G", "mean B", "std R", "std G", "std B", "|dx|"]
RECIPE = "config=pretrain/simclr/resnet18_cifar10_200ep"
ARMS = {
    "reference": ["data.backend=reference"],
    "memory": ["data.backend=fast", "data.in_memory=true"],
    "worker": ["data.backend=fast", "data.in_memory=false", "data.augment_on=worker"],
}
AT_ONCE = 50  # images; divides the number of photographs
SIDE = 256  # of squares

# ---------------------------------------------------------------- moments


class InOrder(Order):
    """The same image at the same position, whatever the seed."""

    def indices(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        return positions


class Images:
    """A source of encoded images or arrays."""

    num_classes = classes = None

    def __init__(self, images: Any):
        self.held = images

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.held[index])


@dataclass
class Workload:
    """Attributes:
    views: how many images are looked at; some more than once if there are fewer.
    """

    title: str
    images: Any
    augment: str
    views: int


def workloads(options: argparse.Namespace) -> list[Workload]:
    photos = photographs()
    squares = [ImageOps.fit(decode(p), (SIDE, SIDE), Image.Resampling.LANCZOS) for p in photos]
    return [
        Workload("CIFAR-10", cifar_arrays(options.images), "simclr_cifar", options.images),
        Workload("photographs", photos, "swav", options.photographs),
        Workload(
            f"squares of {SIDE} px", np.stack(squares), "swav", options.photographs // 2
        ),
    ]  # fmt: skip


def ways(images: Any, views: Views) -> dict[str, Any]:
    """Name -> seed -> a dataset that makes these views."""
    source, order = Images(images), InOrder([len(images)])
    found = {
        "reference": lambda seed: ViewDataset(source, views, order, seed),
        "worker": lambda seed: ViewDataset(source, FastViews(views, False), order, seed),
        "device": lambda seed: ViewDataset(source, FastViews(views, True), order, seed),
    }
    if isinstance(images, np.ndarray):
        found["memory"] = lambda seed: MemoryDataset(
            source, images, views, order, seed, torch.device("cpu")
        )
    return found


def crops(dataset: Any, images: int) -> Iterator[list[np.ndarray]]:
    """uint8 [N, S, S, 3] of each view group, some images after the other, through all epochs."""
    size = len(dataset.order)
    for first in range(0, images, AT_ONCE):
        epoch, start = divmod(first, size)
        positions = np.arange(start, min(start + AT_ONCE, size))
        batch = dataset.finish(dataset[Request(0, epoch, positions)])
        yield [view.flatten(0, 1).numpy() for view in batch.views]


def describe(x_NSSC: np.ndarray) -> np.ndarray:
    """[N, 7 + BINS]: the statistics of every view; shares of the bins in 1/255 of a whole."""
    values_NSSC = x_NSSC.astype(np.float32)
    dx_N = np.abs(np.diff(values_NSSC, axis=2)).mean((1, 2, 3))
    first = np.arange(len(x_NSSC))[:, None] * BINS
    bins_NP = first + (x_NSSC.reshape(len(x_NSSC), -1) // (256 // BINS))
    count_NB = np.bincount(bins_NP.ravel(), minlength=len(x_NSSC) * BINS).reshape(-1, BINS)
    parts = [values_NSSC.mean((1, 2)), values_NSSC.std((1, 2)), dx_N[:, None]]
    return np.concatenate([*parts, count_NB / bins_NP.shape[1]], 1)


@dataclass
class Pixels:
    """Of the same draws: sums over pixels."""

    difference: float = 0.0
    equal: float = 0.0
    within_one: float = 0.0
    count: int = 0

    def add(self, x_NSSC: np.ndarray, y_NSSC: np.ndarray) -> None:
        apart = np.abs(x_NSSC.astype(np.int16) - y_NSSC)
        self.difference += apart.sum()
        self.equal += (apart == 0).sum()
        self.within_one += (apart <= 1).sum()
        self.count += apart.size


def moments(work: Workload) -> None:
    """Prints a table for each view group."""
    config = compose([RECIPE, f"augment={work.augment}"])
    groups = [vars(group) if isinstance(group, ViewGroup) else group for group in config.data.views]
    views = Views.build(groups)
    known, groups = ways(work.images, views), range(len(views.counts))
    others = [name for name in known if name != "reference"]
    pixels = {name: [Pixels() for _ in groups] for name in others}
    same: dict[str, list] = {name: [[] for _ in groups] for name in known}
    for parts in zip(*(crops(make(0), work.views) for make in known.values())):
        made = dict(zip(known, parts))
        for g in groups:
            for name in known:
                same[name][g].append(describe(made[name][g]))
            for name in others:
                pixels[name][g].add(made["reference"][g], made[name][g])
    apart: dict[str, list] = {name: [[] for _ in groups] for name in known}
    for seed, (name, make) in enumerate(known.items(), 1):
        for made in crops(make(seed), work.views):
            for g in groups:
                apart[name][g].append(describe(made[g]))
    for g in groups:
        base = np.concatenate(same["reference"][g])
        title = f"{work.title}, {work.augment}, {len(base):,} views of {views.sizes[g]} px"
        print(f"\n{title}\nthe same draws{'':12}" + "".join(f"{name:>24}" for name in others))
        row("mean |difference|", [f"{p.difference / p.count:.4f}" for p in at(pixels, g)])
        row("equal values", [f"{p.equal / p.count:.2%}" for p in at(pixels, g)])
        row("at most 1 apart", [f"{p.within_one / p.count:.2%}" for p in at(pixels, g)])
        table(base, {name: np.concatenate(same[name][g]) for name in others})
        print(f"other draws{'':15}" + "".join(f"{name:>24}" for name in known))
        table(base, {name: np.concatenate(apart[name][g]) for name in known})


def at(found: dict[str, list], g: int) -> list:
    return [groups[g] for groups in found.values()]


def row(name: str, cells: list[str]) -> None:
    print(f"  {name:24}" + "".join(f"{cell:>24}" for cell in cells))


def table(base: np.ndarray, others: dict[str, np.ndarray]) -> None:
    """difference ± standard error (z), a column for each of `others`."""
    found = {name: compared(base, other) for name, other in others.items()}
    for k, name in enumerate(ROWS):
        cells = [f"{d[k]:+.3f} ± {e[k]:.3f} ({z[k]:+.1f})" for d, e, z in found.values()]
        row(f"{name:7} {base[:, k].mean():7.2f}", cells)
    bins = slice(len(ROWS), None)
    cells = [
        f"{np.abs(d[bins]).sum() / 2:.5f} ({np.sqrt((z[bins] ** 2).mean()):.1f})"
        for d, _, z in found.values()
    ]
    row("histogram", cells)


def compared(base: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean difference of every statistic, its standard error, and z; 0 where nothing differs."""
    apart = other - base
    mean, error = apart.mean(0), apart.std(0, ddof=1) / len(apart) ** 0.5
    return mean, error, np.divide(mean, error, out=np.zeros_like(mean), where=error > 0)


# ---------------------------------------------------------------- kNN


def knn(options: argparse.Namespace) -> None:
    """Prints a row per seed, and what they say together."""
    with tempfile.TemporaryDirectory() as kept, ThreadPoolExecutor(options.at_once) as pool:
        folder = Path(options.out or kept).resolve()
        unpack_cifar(folder / "images", train=options.per_class, test=1000)
        arms = options.arms.split(",")
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        cells = [(seed, arm) for seed in seeds for arm in arms]
        start = time.perf_counter()
        done = list(pool.map(partial(trained, options, folder), cells))
        minutes = (time.perf_counter() - start) / 60
    print(
        f"\nSimCLR, ResNet-18, {options.width:g}x its width, CIFAR stem;"
        f" {options.per_class} train images per class, epochs: {options.epochs:g},"
        f" {options.batch} images per step, {options.precision}; kNN of 10,000 test images;"
        f" untrained {done[0][0]:.2%}; {minutes:.0f} minutes"
    )
    print(
        "seed" + "".join(f"{arm:>12}" for arm in arms) + "   (seconds of training and evaluation)"
    )
    found = {arm: [] for arm in arms}
    for (_, arm), result in zip(cells, done):
        found[arm].append(100 * result[1])
    for seed, row_A in zip(seeds, zip(*found.values())):
        seconds = ", ".join(f"{r[2]:.0f}" for cell, r in zip(cells, done) if cell[0] == seed)
        print(f"{seed:4}" + "".join(f"{value:10.2f} %" for value in row_A) + f"   ({seconds})")
    if options.seeds > 1:
        summary(found)


def summary(found: dict[str, list[float]]) -> None:
    """Means, spreads, and the difference of each arm to the first with its standard error."""
    for arm, values in found.items():
        print(f"{arm:10} {statistics.mean(values):.2f} ± {statistics.stdev(values):.2f} %")
    (first, base), *others = found.items()
    for arm, values in others:
        error = sum(statistics.variance(v) / len(v) for v in (base, values)) ** 0.5
        apart = statistics.mean(values) - statistics.mean(base)
        pairs = [b - a for a, b in zip(base, values)]
        paired = statistics.stdev(pairs) / len(pairs) ** 0.5
        test = ttest_ind(values, base, equal_var=False)
        print(
            f"{arm} - {first}: {apart:+.2f} points, standard error {error:.2f} from the spread of"
            f" the seeds, {paired:.2f} seed by seed; Welch's t {test.statistic:+.1f},"
            f" p {test.pvalue:.2f}"
        )


def trained(
    options: argparse.Namespace, folder: Path, cell: tuple[int, str]
) -> tuple[float, float, float]:
    """kNN accuracy before and after a run, and its seconds."""
    seed, arm = cell
    run_dir, start = folder / f"{arm}_{seed}", time.perf_counter()
    result = run_dir.with_suffix(".json")
    if result.is_file():
        return tuple(json.loads(result.read_text()))
    shutil.rmtree(run_dir, ignore_errors=True)
    words = [RECIPE, f"run_dir={run_dir}", f"seed={seed}", *ARMS[arm]]
    words += ["hooks=[evaluate]", "loggers=[jsonl]", "device=cpu"]
    words += [f"precision={options.precision}"]
    words += ["memory.memory_format=channels_last", "data.workers=0"]
    words += [f"trunk.width_multiplier={options.width}", f"train.batch_size={options.batch}"]
    words += [f"train.epochs={options.epochs}", f"hooks.evaluate.every_epochs={options.epochs}"]
    words += [f"hooks.evaluate.at_start={str(seed == options.first_seed).lower()}"]
    run = [sys.executable, "-m", "vissl_lite", *words]
    environment = os.environ | {"CIFAR10": str(folder / "images"), "OMP_NUM_THREADS": "1"}
    subprocess.run(run, check=True, env=environment, stdout=subprocess.DEVNULL)
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    accuracy = [record["top1"] for record in lines if record["kind"] == "eval"]
    found = accuracy[0], accuracy[-1], time.perf_counter() - start
    result.write_text(json.dumps(found))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", default="transforms,moments,knn")
    parser.add_argument("--images", type=int, default=10_000, help="of CIFAR-10")
    parser.add_argument("--photographs", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="to add seeds to earlier ones")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--per-class", type=int, default=2000, help="training images")
    parser.add_argument("--width", type=float, default=0.25, help="of the ResNet-18")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--precision", default="fp32", help="of the training")
    parser.add_argument("--out", help="folder of the runs, kept")
    parser.add_argument("--at-once", type=int, default=2, help="runs")
    parser.add_argument("--arms", default=",".join(ARMS))
    options = parser.parse_args()
    print(about())
    if "transforms" in options.only:
        torch.set_num_threads(1)
        files = photographs()
        forms(files[::6][:40])
        shrunk(files)
    if "moments" in options.only:
        torch.set_num_threads(1)
        for work in workloads(options):
            moments(work)
    if "knn" in options.only:
        knn(options)


if __name__ == "__main__":
    main()
