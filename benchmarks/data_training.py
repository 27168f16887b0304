"""Training and feature extraction end to end: images/s and the wait for data.

    python benchmarks/data_training.py [--rounds 3] [--seconds 8] [--workers 0,1,2] [--depth 18]
        [--only swav,simclr,features,small,cifar] [--precision bf16] [--threads N]
    python benchmarks/data_training.py --device cuda        SwAV, ResNet-50, 0 to 15 workers
    python benchmarks/data_training.py --toy                the same with a tiny trunk, on a CPU

    swav, simclr      a ResNet, the 250 photographs, packed, 2x224 + 6x96 or 2x224 crops
    features, small   `features.extract`, two copies of them as files, a ResNet or four convolutions
    cifar             SimCLR, four convolutions, 5,000 CIFAR-10 files, also from memory

Built as a run is, real steps. Left out: the first steps, and as many as there were batches when the
first began. Then as many as fit into --seconds; of an extraction, the whole. All cells of a
workload in turn, so many rounds, the first cell also before them; after several rounds, medians.
"wait" is the share of the time that the steps wait for their batches, on a GPU that it is idle for
want of them; without workers, all that it takes to make them. "ratio" is that to the first line,
"x ref" that to the reference with as many workers. "resident" is one batch over and over, which
costs nothing: the full rate. bf16 is what a run chooses on a GPU and on a CPU with AMX; without,
take fp32. Archives: `$VISSL_LITE_DATA`.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as `vissl-lite` does

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from _data_cells import about, unpack_cifar, unpack_photographs

from vissl_lite.config import Config
from vissl_lite.data.batch import Batch
from vissl_lite.data.fast import FastViews
from vissl_lite.data.workers import PREFETCH
from vissl_lite.engine.bench import labelled_views
from vissl_lite.engine.build import build_model, build_source
from vissl_lite.engine.features import extract
from vissl_lite.engine.numerics import Numerics, apply_layout, synchronise
from vissl_lite.engine.trainer import Trainer
from vissl_lite.overrides import compose
from vissl_lite.profile.clock import Clock, take_steps
from vissl_lite.shards.build import build
from vissl_lite.shards.convert import Settings
from vissl_lite.sources.image_folder import ImageFolder

BASE = ["memory.memory_format=channels_last", "memory.activation_checkpointing=none"]
BASE += ["train.epochs=1000"]
BASE += [f"{group}=[]" for group in ("hooks", "loggers", "evaluations")]
BACK_ENDS = {
    "reference": ["data.backend=reference"],
    "fast": ["data.backend=fast", "data.in_memory=false"],
    "resident": ["data.backend=fast", "data.in_memory=false"],
    "memory": ["data.backend=fast", "data.in_memory=true"],
}
FROM_FILES = ("reference", "fast")
PACKED = ["~dataset", "data/source=packed"]
ALL = "swav,simclr,features,small,cifar"
ON_CPU = {"only": ALL, "workers": "0,1,2", "depth": 18, "batch": 16}
ON_GPU = {"only": "swav", "workers": "0,1,2,4,8,15", "depth": 50, "batch": 128}
TOY = {"only": "swav", "workers": "0,1,2", "depth": 18, "batch": 8}
WARMUP, LEAST = 2, 3  # steps
ZERO = 0.01  # share of the time that counts as no wait


@dataclass
class Cost:
    images_per_s: float
    wait: float  # share of the time


@dataclass
class Workload:
    """Attributes:
    trains: or extracts features.
    words: of the config.
    """

    title: str
    trains: bool
    words: list[str]
    back_ends: tuple[str, ...] = FROM_FILES


def training(config: Config, seconds: float, resident: bool) -> Cost:
    """Of the steps of a run."""
    with tempfile.TemporaryDirectory() as run_dir:
        trainer = Trainer(config, Path(run_dir))
        batches = iter(trainer.parts.loader(0))
        batches = repeat(next(batches)) if resident else batches
        timed(trainer, batches, WARMUP)
        step_s = sum(timed(trainer, batches, 1)[0].values())
        most = int(seconds / step_s)
        timed(trainer, batches, min(PREFETCH * trainer.parts.workers, most))
        steps = timed(trainer, batches, max(LEAST, most))
    total = sum(sum(step.values()) for step in steps)
    waited = sum(step["data"] for step in steps)
    return Cost(config.train.batch_size * len(steps) / total, waited / total)


def timed(trainer: Trainer, batches: Iterator[Batch], count: int) -> list[dict[str, float]]:
    """Seconds of every phase of so many steps."""
    if count == 0:
        return []
    clock = Clock(trainer.device)
    take_steps(trainer, batches, clock, count)
    return clock.steps()


def extraction(config: Config) -> Cost:
    """Of the features of a whole source, as evaluations compute them."""
    source, views = build_source(config), labelled_views(config.labelled)
    reference = config.data.backend == "reference"
    device, model = torch.device(config.device), build_model(config, source.num_classes)
    numerics = Numerics(config.precision, config.memory.memory_format, "as given")
    apply_layout(model.to(device), numerics)
    model.layer_features = watch = Stopwatch(model.layer_features, device)
    start = time.perf_counter()
    extract(
        model,
        source,
        views if reference else FastViews(views, on_device=False),
        device=device,
        numerics=numerics,
        batch_size=config.labelled.batch_size,
        workers=config.data.workers,
    )
    seconds = time.perf_counter() - start
    return Cost(len(source) / seconds, 1 - watch.seconds / seconds)


class Stopwatch:
    """A function that knows how long all its calls have taken."""

    def __init__(self, call: Callable, device: torch.device):
        self.call, self.device, self.seconds = call, device, 0.0

    def __call__(self, *args: Any) -> Any:
        start = time.perf_counter()
        result = self.call(*args)
        synchronise(self.device)
        self.seconds += time.perf_counter() - start
        return result


def packed(folder: Path) -> Path:
    """The 250 photographs as shards, their bytes as they are."""
    source = ImageFolder(str(unpack_photographs(folder / "photographs")))
    build(source, {"name": "image_folder"}, Settings(), folder / "packed", workers=1, max_broken=0)
    return folder / "packed"


def workloads(folder: Path, options: argparse.Namespace) -> dict[str, Workload]:
    """Those of --only, by name; unpacks their images into `folder`."""
    depth, four = f"trunk.depth={options.depth}", ["trunk=four_convs"]
    net, resnet = f"ResNet-{options.depth}", four if options.toy else [depth]
    net = "4 convs" if options.toy else net
    swav, simclr = "swav/resnet50_in1k_200ep", "simclr/resnet50_in1k_200ep"
    cifar = "simclr/resnet18_cifar10_200ep"
    full = ("resident",) if options.toy or options.device != "cpu" else ()

    def trained(title: str, recipe: str) -> Workload:
        images = [*PACKED, f"data.source.path={packed(folder / title)}"]
        words = [f"config=pretrain/{recipe}", *images, f"train.batch_size={options.batch}"]
        return Workload(f"{title}, {net}", True, [*words, *resnet], (*full, *FROM_FILES))

    def extracted(title: str, trunk: list[str]) -> Workload:
        images = unpack_photographs(folder / title, copies=2)
        words = [f"config=pretrain/{simclr}", f"data.source.path={images}", *trunk]
        return Workload(f"features, {title}", False, [*words, "labelled.batch_size=32"])

    def from_cifar() -> Workload:
        os.environ["CIFAR10"] = str(unpack_cifar(folder / "cifar", train=500, test=1))
        words = [f"config=pretrain/{cifar}", "train.batch_size=256", *four, "trunk.stride=1"]
        return Workload("CIFAR SimCLR, 4 convs", True, words, (*FROM_FILES, "memory"))

    known = {
        "swav": lambda: trained("SwAV", swav),
        "simclr": lambda: trained("SimCLR", simclr),
        "features": lambda: extracted(net, resnet),
        "small": lambda: extracted("4 convs", four),
        "cifar": from_cifar,
    }
    return {name: known[name]() for name in options.only.split(",")}


def measured(workload: Workload, back_end: str, count: int, options: argparse.Namespace) -> Cost:
    words = [f"device={options.device}", f"precision={options.precision}", f"data.workers={count}"]
    config = compose([*BASE, *workload.words, *BACK_ENDS[back_end], *words])
    if workload.trains:
        return training(config, options.seconds, back_end == "resident")
    return extraction(config)


def report(workload: Workload, options: argparse.Namespace) -> None:
    """A line for each back end and number of workers as it is measured; how many suffice."""
    workers = [int(count) for count in options.workers.split(",")]
    chosen = [b for b in workload.back_ends if b in (*options.back_ends.split(","), "resident")]
    cells = [(b, count) for b in chosen for count in (workers if b in FROM_FILES else [0])]
    found: dict[tuple[str, int], list[Cost]] = {cell: [] for cell in cells}
    measured(workload, *cells[0], options)  # a process is slow at first
    for _ in range(options.rounds):
        latest: dict[tuple[str, int], Cost] = {}
        for cell in cells:
            latest[cell] = measured(workload, *cell, options)
            found[cell].append(latest[cell])
            print(line(workload, cell, latest), flush=True)
    cost = {cell: middle(costs) for cell, costs in found.items()}
    if options.rounds > 1:
        print(f"medians of {options.rounds} rounds:")
        for cell in cells:
            print(line(workload, cell, cost), flush=True)
    for back_end in chosen:
        if workload.trains and back_end in FROM_FILES:
            enough = [count for count in workers if cost[back_end, count].wait < ZERO]
            least = str(min(enough)) if enough else f"none of {options.workers}"
            print(f"{'':22} {back_end}: least workers with less than {ZERO:.0%} wait: {least}")


def line(workload: Workload, cell: tuple[str, int], cost: dict[tuple[str, int], Cost]) -> str:
    """A cell beside the first one and the reference."""
    (back_end, count), own, first = cell, cost[cell], next(iter(cost.values()))
    base = cost.get(("reference", count)) if back_end in FROM_FILES else None
    equal = f"{own.images_per_s / base.images_per_s:6.2f}x" if base else ""
    row = f"{workload.title:22} {back_end:15} {count:7} {own.images_per_s:9,.1f}"
    return f"{row} {own.images_per_s / first.images_per_s:6.2f}x {equal:>7} {own.wait:7.1%}"


def middle(costs: list[Cost]) -> Cost:
    """The median of either number."""
    rates, waits = [c.images_per_s for c in costs], [c.wait for c in costs]
    return Cost(statistics.median(rates), statistics.median(waits))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--toy", action="store_true", help="a tiny trunk, few steps, one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="of each training and round")
    parser.add_argument("--only", help="workloads")
    parser.add_argument("--workers")
    parser.add_argument("--back-ends", default="reference,fast,memory")
    parser.add_argument("--depth", type=int, help="of the ResNet")
    parser.add_argument("--batch", type=int, help="images of a step, of photographs")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--threads", type=int, help="of training; torch's choice if not given")
    options = parser.parse_args()
    if options.toy:
        options.rounds, options.seconds, chosen = 1, 1.0, TOY
    else:
        chosen = ON_CPU if options.device == "cpu" else ON_GPU
    for name, value in chosen.items():
        setattr(options, name, getattr(options, name) or value)
    return options


def main() -> None:
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    threads = f"{torch.get_num_threads()} threads train in {options.precision}"
    print(f"{about()}; {device}, {threads}")
    print(f"{'':22} {'back end':15} workers  images/s   ratio   x ref    wait")
    with tempfile.TemporaryDirectory() as folder:
        for workload in workloads(Path(folder), options).values():
            report(workload, options)


if __name__ == "__main__":
    main()
