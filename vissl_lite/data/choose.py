"""Which way images take: reference or fast, from memory or workers, colours here or there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from vissl_lite.config import Data
from vissl_lite.data.dataset import ViewDataset
from vissl_lite.data.device import worth_compiling
from vissl_lite.data.fast import FastViews
from vissl_lite.data.resident import MemoryDataset, held_images
from vissl_lite.data.sampler import Order, Request
from vissl_lite.data.transform import has_batch_form
from vissl_lite.data.views import Views
from vissl_lite.errors import ConfigError
from vissl_lite.parallel.collectives import broadcast_object

LARGEST_IN_MEMORY = 2**31  # bytes of images that `in_memory: auto` puts on the device
IMAGES, ROUNDS = 8, 3  # of a measurement
MARGIN = 1.5  # below this ratio noise could decide, and the way would differ from run to run

Place = Literal["memory", "worker", "device"]


@dataclass
class Way:
    """Decided once per run and kept with its checkpoints, so that a resumed run sees the same.

    Attributes:
        colours: where flips and colours are made: on images in memory, in a worker, on the device.
        reason: for the log.
        compiled: whether what is made on the device is compiled.
    """

    backend: str
    colours: Place
    reason: str
    compiled: bool = False

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        place = {
            "memory": "all images on the device",
            "worker": "flips and colours where images are decoded",
            "device": "flips and colours on the device",
        }
        compiled = ", transforms compiled" if self.compiled else ""
        return f"{self.backend} back end, {place[self.colours]}{compiled} ({self.reason})"


def make_dataset(
    config: Data,
    source: Any,
    views: Views,
    order: Order,
    seed: int,
    device: torch.device,
    workers: int,
    batch_size: int = 0,
    steps: int = 0,
    chosen: dict[str, Any] | None = None,
) -> tuple[ViewDataset | MemoryDataset, Way]:
    """The dataset that a config asks for, and what was chosen.

    Args:
        batch_size, steps: images per step of this process, and steps of the run.
        chosen: state of the `Way` of the run that is resumed.

    Raises:
        ConfigError: `in_memory: true` with transforms or images that cannot be.
    """
    if config.backend == "reference":
        if config.resize == "linear":
            raise ConfigError("data.resize: linear is for data.backend=fast; the reference is not")
        return ViewDataset(source, views, order, seed), Way("reference", "worker", "as given")

    def dataset(on_device: bool, compiled: bool = False) -> ViewDataset:
        fast = FastViews(views, on_device, linear=config.resize == "linear")
        return ViewDataset(source, fast, order, seed, batch_size if compiled else 0)

    images = None if config.in_memory is False else held_images(source)
    way = Way(**chosen) if chosen else None
    if way is None and (reason := _reason_for_memory(config, images, views)):
        way = Way("fast", "memory", reason)
    way = way or _choose_place(config, dataset, device, workers)
    if way.colours != "worker" and not chosen:
        crops = [batch_size * steps * group.count for group in views.groups]
        pays = [worth_compiling(device, n, g.size) for n, g in zip(crops, views.groups)]
        way = replace(way, compiled=any(pays))
    if way.colours == "memory":
        place = torch.device("cpu") if device.type == "meta" else device
        compiled_for = batch_size if way.compiled else 0
        return MemoryDataset(source, images, views, order, seed, place, compiled_for), way
    return dataset(way.colours == "device", way.compiled), way


def _reason_for_memory(config: Data, images: np.ndarray | None, views: Views) -> str:
    """Why images are kept in memory; empty if they are not."""
    others = [
        type(transform).__name__
        for group in views.groups
        for transform in group.transforms
        if not has_batch_form(transform)
    ]
    if config.in_memory is True:
        if others:
            raise ConfigError(
                f"data.in_memory: {others[0]} works on one image at a time; set"
                " data.in_memory=false, or leave this transform out"
            )
        return "as given"
    if images is None or config.augment_on == "worker" or others:
        return ""
    if images.nbytes > LARGEST_IN_MEMORY:
        return ""
    return f"{len(images):,} images of {images.shape[2]}x{images.shape[1]} fit in memory"


def _choose_place(
    config: Data, dataset: Callable[[bool], ViewDataset], device: torch.device, workers: int
) -> Way:
    on_device = dataset(True)
    assert isinstance(on_device.views, FastViews)
    if config.augment_on != "auto":
        return Way("fast", config.augment_on, "as given")
    if not on_device.views.leaves_work:
        return Way("fast", "worker", "nothing that a device could do")
    if device.type == "meta":
        return Way("fast", "worker", "not measured")
    return broadcast_object(_measured(dataset(False), on_device, device, workers))


def _measured(
    in_worker: ViewDataset, on_device: ViewDataset, device: torch.device, workers: int
) -> Way:
    """The cheaper of the two, on the first images of the first batch.

    worker: (time of a sample - time of its crops alone) / number of workers
    device: time of the colours, one batch of them
    """
    request = Request(0, 0, np.arange(min(IMAGES, len(in_worker.order))))
    images = len(request.positions)
    crops = on_device[request].to(device)
    seconds = {
        "worker": (_best(lambda: in_worker[request]) - _best(lambda: on_device[request]))
        / max(1, workers),
        "device": _best(lambda: _synchronised(on_device.finish, crops, device)),
    }
    first, other = ("device", "worker") if device.type == "cuda" else ("worker", "device")
    place: Any = other if MARGIN * seconds[other] < seconds[first] else first
    shown = ", ".join(f"{name} {1e3 * s / images:.2f}" for name, s in seconds.items())
    return Way("fast", place, f"ms/image measured on {images} images: {shown}")


def _synchronised(finish: Callable, batch: Any, device: torch.device) -> None:
    finish(batch)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _best(call: Callable[[], Any]) -> float:
    call()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)  # other work on the machine only ever adds time
