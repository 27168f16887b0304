"""Colours on the device: ms per image, eager, compiled and by kornia, beside the step they feed.

    python benchmarks/data_gpu.py [--device cuda] [--images 64] [--rounds 9] [--no-step]
    python benchmarks/data_gpu.py --toy         on a CPU, with a tiny trunk: does it run

SwAV 2x224 + 6x96 and SimCLR 2x224: uint8 crops on the device to uint8 crops (kornia: to floats).
The crops are white noise, the worst case. The step is ResNet-50 with the loss of the recipe on
crops that are there already. All in turn in each round; medians.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable

import _data_cells  # noqa: F401  (four_convs)
import _data_peers as peers
import torch
from data_views import augmentation

from vissl_lite.data.batch import Batch
from vissl_lite.data.dataset import ViewDataset
from vissl_lite.data.fast import FastViews
from vissl_lite.data.sampler import Order
from vissl_lite.data.views import Views
from vissl_lite.engine.parts import Parts
from vissl_lite.overrides import compose
from vissl_lite.plugins import load_entries

RECIPES = {
    "swav": "pretrain/swav/resnet50_in1k_800ep",
    "simclr": "pretrain/simclr/resnet50_in1k_800ep",
}


def crops(views: Views, images: int, device: torch.device) -> Batch:
    """White noise in every crop, and the parameters that a worker would send."""
    fast = FastViews(views, on_device=True)
    work = fast.draw(0, 0, torch.arange(images).numpy())
    sides = zip(views.counts, views.sizes)
    found = [torch.randint(0, 256, (v, images, s, s, 3), dtype=torch.uint8) for v, s in sides]
    return Batch(found, torch.arange(images), unfinished=work.on_device).to(device)


def ours(views: Views, batch: Batch, compiled: bool) -> Callable:
    fast = FastViews(views, on_device=True)
    dataset = ViewDataset(None, fast, Order([1]), 0, len(batch) if compiled else 0)
    return lambda: dataset.finish(batch)


def kornia(groups: list[peers.Group], batch: Batch) -> Callable:
    chains = peers.kornia_chains(groups)

    def run() -> None:
        for chain, view in zip(chains, batch.views):
            chain(view.flatten(0, 1).permute(0, 3, 1, 2).float().div_(255))

    return run


def step(recipe: str, batch: Batch, device: torch.device, toy: bool) -> Callable:
    """Forward, loss, backward, optimizer."""
    words = [f"config={recipe}", f"train.batch_size={len(batch)}", "dataset=synthetic"]
    words += ["data.augment_on=worker", "memory.activation_checkpointing=none"]  # auto measures
    words += ["trunk=four_convs"] if toy else []
    parts = Parts(compose([*words, f"device={device.type}"]), device)
    finished = Batch(batch.views, batch.index_B)

    def run() -> None:
        with parts.numerics.autocast(device):
            outputs = parts.forward(finished.views)
        losses = parts.loss(outputs, finished)
        (losses["loss"] if isinstance(losses, dict) else losses).backward()
        parts.optimizer.step()
        parts.optimizer.zero_grad(set_to_none=True)

    return run


def measure(calls: dict[str, Callable], rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each, after two calls that are not counted."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(rounds + 2):
        for name, call in calls.items():
            synchronise(device)
            start = time.perf_counter()
            call()
            synchronise(device)
            if round_ > 1:
                found[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-step", action="store_true")
    parser.add_argument("--toy", action="store_true", help="SimCLR, 4 images, one round")
    options = parser.parse_args()
    if options.toy:
        options.device, options.images, options.rounds = "cpu", 4, 1
    load_entries()
    name_of_step = "step of 4 convs" if options.toy else "ResNet-50 step"
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, {options.images} images, torch {torch.__version__}, {peers.versions()}")
    for workload in ["simclr"] if options.toy else RECIPES:
        groups = augmentation(workload)
        views = Views.build(groups)
        batch = crops(views, options.images, device)
        calls = {"eager": ours(views, batch, False), "compiled": ours(views, batch, True)}
        with contextlib.suppress(ImportError):
            calls["kornia"] = kornia(groups, batch)
        if not options.no_step:
            calls[name_of_step] = step(RECIPES[workload], batch, device, options.toy)
        seconds = measure(calls, options.rounds, device)
        print(f"\n{workload}")
        for kind, s in seconds.items():
            share = s / seconds.get(name_of_step, s)
            of_step = "" if options.no_step else f"{share:8.1%} of the step"
            print(f"{kind:16}{1e3 * s / options.images:9.3f} ms/image{of_step}")


if __name__ == "__main__":
    main()
