"""Training and feature extraction end to end on a CPU: images/s and the wait for data.

    python benchmarks/data_training.py [--seconds 8] [--only swav,simclr,features,small,cifar]
        [--workers 0,1,2] [--depth 18] [--precision bf16] [--threads N]

    swav, simclr      a ResNet, the 250 photographs as files, 2x224 + 6x96 or 2x224 crops
    features, small   `features.extract`, two copies of them, a ResNet or four convolutions
    cifar             SimCLR, four convolutions, 5,000 CIFAR-10 files, also from memory

Built as a run is, real steps: the first two are left out, then as many as fit into --seconds; the
rate is that of the median step, of an extraction that of the whole. "wait" is the share of the time
that the steps wait for their batches: without workers, all that it takes to make them. Ratios are
to the reference without workers. bf16 is what a run chooses on a CPU with AMX; without, take fp32.
Archives: `$VISSL_LITE_DATA`.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as `vissl-lite` does

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _data_cells import about, unpack_cifar, unpack_photographs

from vissl_lite.config import Config
from vissl_lite.data.fast import FastViews
from vissl_lite.engine.bench import labelled_views
from vissl_lite.engine.build import build_model, build_source
from vissl_lite.engine.features import extract
from vissl_lite.engine.numerics import Numerics, apply_layout
from vissl_lite.engine.trainer import Trainer
from vissl_lite.overrides import compose

BASE = ["device=cpu", "memory.memory_format=channels_last", "train.epochs=1000"]
BASE += [f"{group}=[]" for group in ("hooks", "loggers", "evaluations")]
BACK_ENDS = {
    "reference": ["data.backend=reference"],
    "fast": ["data.backend=fast", "data.in_memory=false"],
    "fast, in memory": ["data.backend=fast", "data.in_memory=true"],
}
FROM_FILES = ("reference", "fast")
WARMUP, LEAST = 2, 3  # steps


@dataclass
class Cost:
    images_per_s: float
    wait: float  # share of the time


@dataclass
class Workload:
    """Attributes:
    measure: what the config is given to.
    words: of the config.
    """

    title: str
    measure: Callable[[Config], Cost]
    words: list[str]
    back_ends: tuple[str, ...] = FROM_FILES


def training(config: Config, seconds: float) -> Cost:
    """Of the steps of a run."""
    with tempfile.TemporaryDirectory() as run_dir:
        trainer = Trainer(config, Path(run_dir))
        loader = trainer.parts.loader(0)
        batches, times = iter(loader), []
        for _ in range(WARMUP):
            trainer.train_step(next(batches))
        start, waited_s = time.perf_counter(), loader.waited_s
        while len(times) < LEAST or sum(times) < seconds:
            began = time.perf_counter()
            trainer.train_step(next(batches))
            times.append(time.perf_counter() - began)
        wait = (loader.waited_s - waited_s) / (time.perf_counter() - start)
    return Cost(config.train.batch_size / statistics.median(times), wait)


def extraction(config: Config) -> Cost:
    """Of the features of a whole source, as evaluations compute them."""
    source, views = build_source(config), labelled_views(config.labelled)
    reference = config.data.backend == "reference"
    model = build_model(config, source.num_classes)
    numerics = Numerics(config.precision, config.memory.memory_format, "as given")
    apply_layout(model, numerics)
    model.layer_features = clock = Clock(model.layer_features)
    start = time.perf_counter()
    extract(
        model,
        source,
        views if reference else FastViews(views, on_device=False),
        device=torch.device("cpu"),
        numerics=numerics,
        batch_size=config.labelled.batch_size,
        workers=config.data.workers,
    )
    seconds = time.perf_counter() - start
    return Cost(len(source) / seconds, 1 - clock.seconds / seconds)


class Clock:
    """A function that knows how long all its calls have taken."""

    def __init__(self, call: Callable):
        self.call, self.seconds = call, 0.0

    def __call__(self, *args: Any) -> Any:
        start = time.perf_counter()
        result = self.call(*args)
        self.seconds += time.perf_counter() - start
        return result


def workloads(folder: Path, depth: int, seconds: float) -> dict[str, Workload]:
    """By the name that --only takes; unpacks the images into `folder`."""
    os.environ["CIFAR10"] = str(unpack_cifar(folder / "cifar", train=500, test=1))
    photographs = unpack_photographs(folder / "photographs")
    copies = unpack_photographs(folder / "copies", copies=2)

    def train(config: Config) -> Cost:
        return training(config, seconds)

    def words(recipe: str, images: Path | None, trunk: str, *more: str) -> list[str]:
        source = [f"data.source.path={images}"] if images else []
        return [*BASE, f"config=pretrain/{recipe}", *source, *trunk.split(), *more]

    net, resnet = f"ResNet-{depth}", f"trunk.depth={depth}"
    four = "trunk=four_convs ~trunk.depth"
    swav, simclr = "swav/resnet50_in1k_200ep", "simclr/resnet50_in1k_200ep"
    cifar, small = "simclr/resnet18_cifar10_200ep", f"{four} ~trunk.stem trunk.stride=1"
    batch, chunk = "train.batch_size=16", "labelled.batch_size=32"
    return {
        "swav": Workload(f"SwAV, {net}", train, words(swav, photographs, resnet, batch)),
        "simclr": Workload(f"SimCLR, {net}", train, words(simclr, photographs, resnet, batch)),
        "features": Workload(
            f"features, {net}", extraction, words(simclr, copies, resnet, chunk)
        ),
        "small": Workload("features, 4 convs", extraction, words(simclr, copies, four, chunk)),
        "cifar": Workload(
            "CIFAR SimCLR, 4 convs",
            train,
            words(cifar, None, small, "train.batch_size=256"),
            tuple(BACK_ENDS),
        ),
    }  # fmt: skip


def report(workload: Workload, workers: list[int], precision: str) -> None:
    """A line for each back end and number of workers."""
    base = None
    for back_end in workload.back_ends:
        for count in workers if back_end in FROM_FILES else [0]:
            more = [*BACK_ENDS[back_end], f"data.workers={count}", f"precision={precision}"]
            cost = workload.measure(compose([*workload.words, *more]))
            base = base or cost
            rate, ratio = cost.images_per_s, cost.images_per_s / base.images_per_s
            row = f"{workload.title:22} {back_end:15} {count:7}"
            print(f"{row} {rate:9,.1f} {ratio:6.2f}x {cost.wait:7.1%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8, help="of each training")
    parser.add_argument("--only", default="swav,simclr,features,small,cifar")
    parser.add_argument("--workers", default="0,1,2")
    parser.add_argument("--depth", type=int, default=18, help="of the ResNet")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--threads", type=int, help="of training; torch's choice if not given")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"{about()}; {torch.get_num_threads()} threads train in {options.precision}")
    print(f"{'':22} {'back end':15} workers  images/s   ratio    wait")
    with tempfile.TemporaryDirectory() as folder:
        known = workloads(Path(folder), options.depth, options.seconds)
        for name in options.only.split(","):
            workers = [int(count) for count in options.workers.split(",")]
            report(known[name], workers, options.precision)


if __name__ == "__main__":
    main()
