"""Views per second and core: ours against torchvision, albumentations, kornia and the bound.

    python benchmarks/data_views.py [--rounds 7] [--images 250] [--only swav,simclr] [--compile]

From encoded photographs (CIFAR: from the array of pixels) to a batch. CPU time of one thread; all
pipelines in turn in each round, in another order each time; the ratio is the median of the rounds'
ratios to torchvision v1 on PIL images, which is how VISSL and solo-learn do it. The bound is one
decode and one antialiased resize per crop, with crops drawn beforehand, into memory that stays in
the cache: by our own resize, and by torch's public function. Pipelines that are not installed are
left out, visibly. Photographs and CIFAR-10: `$VISSL_LITE_DATA`.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import io
import platform
import statistics
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import _data_peers as peers
import numpy as np
import torch
import torch.nn.functional as F
import torchvision
import yaml
from PIL import Image

from vissl_lite.data.batch import Sample
from vissl_lite.data.buffers import Buffers
from vissl_lite.data.dataset import ViewDataset
from vissl_lite.data.fast import FastViews
from vissl_lite.data.loader import fetched
from vissl_lite.data.resident import MemoryDataset
from vissl_lite.data.sampler import Order, Request
from vissl_lite.data.views import Views
from vissl_lite.plugins import load_entries
from vissl_lite.profile.data import bound

ROOT = Path(__file__).resolve().parents[1]
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
DEMANDS = {"swav": {"colours on the device": 7.0, "all on the CPU": 4.0}}
DEMANDS["simclr"] = {"colours on the device": 5.0, "all on the CPU": 3.3}
DEMANDS["cifar"] = {"in memory": 18.0}
BOUNDS = ("the bound", "the bound by F.interpolate")


class Images:
    """A source of encoded images or of one array."""

    num_classes = classes = None

    def __init__(self, images):
        self.held = images

    def __len__(self):
        return len(self.held)

    def __getitem__(self, index):
        return Sample(self.held[index])


def data_folder() -> Path:
    return Path(os.environ.get("VISSL_LITE_DATA", ROOT.parent / "shared" / "data"))


def photographs(count: int) -> list[bytes]:
    """So many of the photographs, evenly spread over their names."""
    with tarfile.open(data_folder() / "imagenet-samples-250.tar") as tar:
        members = sorted((m for m in tar if m.isfile()), key=lambda m: m.name)
        return [tar.extractfile(m).read() for m in members[:: max(1, len(members) // count)]][
            :count
        ]


def cifar(count: int) -> np.ndarray:
    """[N, 32, 32, 3]: training images."""
    found = []
    with tarfile.open(data_folder() / "cifar10-images.tar.xz") as tar:
        for member in tar:
            if member.isfile() and "/train/" in f"/{member.name}":
                found.append(np.asarray(Image.open(io.BytesIO(tar.extractfile(member).read()))))
            if len(found) == count:
                return np.stack(found)
    raise SystemExit("cifar10-images.tar.xz has too few images")


def augmentation(name: str, interpolation: str = "bilinear") -> list[peers.Group]:
    """A set of `configs/augment`, all crops with the same interpolation."""
    groups = yaml.safe_load((ROOT / "configs" / "augment" / f"{name}.yaml").read_text())["views"]
    for group in groups:
        group["transforms"][0]["interpolation"] = interpolation
    return groups


def normalised(views: list[torch.Tensor]) -> list[torch.Tensor]:
    """Float NCHW, as the model makes them."""
    return [
        v.flatten(0, 1).permute(0, 3, 1, 2).float().sub_(255 * MEAN.view(3, 1, 1))
        .div_(255 * STD.view(3, 1, 1))
        for v in views
    ]  # fmt: skip


def ours(
    images: list[bytes], groups: list[peers.Group], linear: bool = False
) -> dict[str, Callable]:
    """Each from all images to one batch; every call is another epoch."""
    views = Views.build(groups)
    source, epochs = Images(images), iter(range(10**6))
    order = Order([len(images)])
    positions = np.arange(len(images))

    def batch(on_device: bool) -> Callable:
        dataset = ViewDataset(source, FastViews(views, on_device, linear), order, 0)
        buffers = dataset.buffers = Buffers(dataset.shapes(len(images)), slots=1)  # as in a loader
        return lambda: fetched(dataset[Request(0, next(epochs), positions, slot=0)], buffers)

    reference = ViewDataset(source, views, order, 0)
    worker = batch(False)
    return {
        "ours, reference back end": lambda: reference[Request(0, next(epochs), positions)],
        "ours, all on the CPU": worker,
        "ours, all on the CPU, to normalised floats": lambda: normalised(worker().views),
        "ours, colours on the device": batch(True),
        BOUNDS[0]: bound(reference, Request(0, 0, positions)),
        BOUNDS[1]: bound(reference, Request(0, 0, positions), interpolated),
    }


def interpolated(pixels: np.ndarray, box: list[int], size: tuple[int, int], mode: str, _) -> None:
    """What torch's documentation leads to: channels last, the crop contiguous."""
    left, top, right, bottom = box
    crop = torch.from_numpy(np.ascontiguousarray(pixels[top:bottom, left:right]))
    F.interpolate(crop.permute(2, 0, 1)[None], size, mode=mode, antialias=True)


def in_memory(images: np.ndarray, groups: list[peers.Group], compiled: bool) -> dict[str, Callable]:
    views, order, cpu = Views.build(groups), Order([len(images)]), torch.device("cpu")
    compiled_for = len(images) if compiled else 0
    dataset = MemoryDataset(Images(images), images, views, order, 0, cpu, compiled_for)
    epochs, positions = iter(range(10**6)), np.arange(len(images))
    name = "ours, " + ("compiled, " if compiled else "") + "in memory"
    return {name: lambda: dataset[Request(0, next(epochs), positions)]}


def pipelines(workload: str, count: int, compiled: bool) -> tuple[dict[str, Callable], int]:
    """Name -> makes the batch; and the number of images in it."""
    if workload == "cifar":
        array, groups = cifar(2048), augmentation("simclr_cifar")
        calls = {**peers.for_images(array, groups), **in_memory(array, groups, False)}
        if compiled:
            calls |= in_memory(array, groups, True)
        return calls, len(array)
    images, groups = photographs(count), augmentation(workload)
    calls = {**peers.for_images(images, groups), **ours(images, groups)}
    device = "ours, colours on the device"
    bicubic = augmentation(workload, "bicubic")
    calls["ours, bicubic, colours on the device"] = ours(images, bicubic)[device]
    calls["ours, resize=linear, colours on the device"] = ours(images, groups, linear=True)[device]
    return calls, len(images)


def measure(calls: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each call in each round, after one round that is not counted."""
    names, found = list(calls), {name: [] for name in calls}
    for round_ in range(rounds + 1):
        for i in range(len(names)):
            name = names[(i + round_) % len(names)]
            start = time.process_time()
            calls[name]()
            if round_:
                found[name].append(time.process_time() - start)
    return found


def report(workload: str, found: dict[str, list[float]], images: int) -> None:
    against = ["torchvision v1 on PIL", *(name for name in BOUNDS if name in found)]
    titles = ("", "images/s", "x v1", "of the bound", "by F.interpolate")
    widths = (52, 9, 8, 14, 18)
    print(f"\n{workload}: {images} images")
    print("".join(f"{t:>{w}}" for t, w in zip(titles[: 2 + len(against)], widths)))
    for name, seconds in found.items():
        row = f"{name:52}{images / statistics.median(seconds):9,.0f}"
        for other, form in zip(against, ("7.2f}x", "14.0%}", "18.0%}")):
            ratio = statistics.median(b / s for b, s in zip(found[other], seconds))
            row += ("{:" + form).format(ratio)
        demand = DEMANDS[workload].get(name.removeprefix("ours, ").removeprefix("compiled, "))
        print(row + (f"  asked: {demand}x" if demand else ""))


def main() -> None:
    raw = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=250, help="photographs")
    parser.add_argument("--only", default="swav,simclr,cifar")
    parser.add_argument("--compile", action="store_true", help="CIFAR: also with torch.compile")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load_entries()
    versions = [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    versions += [f"torchvision {torchvision.__version__}", *peers.versions()]
    print(f"one thread of {platform.processor() or platform.machine()}; {', '.join(versions)}")
    for workload in options.only.split(","):
        calls, images = pipelines(workload, options.images, options.compile)
        report(workload, measure(calls, options.rounds), images)


if __name__ == "__main__":
    main()
