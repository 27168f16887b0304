"""Which way images take: reference or fast, from memory or workers, colours here or there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import torch

from vissl_lite.config import Data
from vissl_lite.data.dataset import ViewDataset
from vissl_lite.data.device import worth_compiling
from vissl_lite.data.fast import FastViews
from vissl_lite.data.place import Place, cheaper_place
from vissl_lite.data.resident import MemoryDataset, held_images
from vissl_lite.data.sampler import Order
from vissl_lite.data.transform import has_batch_form
from vissl_lite.data.views import Views
from vissl_lite.errors import ConfigError
from vissl_lite.parallel.collectives import broadcast_object

LARGEST_IN_MEMORY = 2**31  # bytes of images that `in_memory: auto` puts on the device


@dataclass
class Way:
    """Decided once per run and kept with its checkpoints, so that a resumed run sees the same.

    Attributes:
        colours: where flips and colours are made: on images in memory, in a worker, on the device.
        reason: for the log.
        compiled: whether what is made on the device is compiled.
    """

    backend: str
    colours: Literal["memory"] | Place
    reason: str
    compiled: bool = False

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        place = {
            "memory": "all images in memory",
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
        ConfigError: settings that exclude each other; `in_memory: true` with transforms or images
            that cannot be.
    """
    _check_together(config)
    if config.backend == "reference":
        return ViewDataset(source, views, order, seed), Way("reference", "worker", "as given")

    @cache  # what was compiled for a measurement is used in the run
    def dataset(on_device: bool, compiled: bool) -> ViewDataset:
        fast = FastViews(views, on_device, linear=config.resize == "linear")
        return ViewDataset(source, fast, order, seed, batch_size if compiled else 0)

    images = None if config.in_memory is False else held_images(source)
    if chosen:
        way = Way(**chosen)
    else:
        crops = [batch_size * steps * group.count for group in views.groups]
        pays = any(worth_compiling(device, n, g.size) for n, g in zip(crops, views.groups))
        if reason := _reason_for_memory(config, images, views):
            way = Way("fast", "memory", reason, compiled=pays)
        else:
            way = _choose_place(config, dataset, device, workers, batch_size, pays)
            way = replace(way, compiled=pays and way.colours == "device")
    if way.colours == "memory":
        place = torch.device("cpu") if device.type == "meta" else device
        compiled_for = batch_size if way.compiled else 0
        return MemoryDataset(source, images, views, order, seed, place, compiled_for), way
    return dataset(way.colours == "device", way.compiled), way


def _check_together(config: Data) -> None:
    if config.backend == "reference":
        _check_reference(config)
    elif config.in_memory is True:
        if config.resize == "linear":
            raise ConfigError(
                "data.resize: linear is for images that are not in memory, where all crops are"
                " made at once, antialiased; set data.in_memory=false or data.resize=antialias"
            )
        if config.augment_on == "worker":
            raise ConfigError(
                "data.augment_on: images in memory are on the device, and so are their flips and"
                " colours; set data.in_memory=false or data.augment_on=auto"
            )


def _check_reference(config: Data) -> None:
    cannot = {
        "resize": (config.resize == "linear", "resizes with antialiasing", "antialias"),
        "in_memory": (config.in_memory is True, "decodes each image anew", "auto"),
        "augment_on": (config.augment_on == "device", "makes flips and colours in workers", "auto"),
    }
    for setting, (asked, does, instead) in cannot.items():
        if asked:
            raise ConfigError(
                f"data.{setting}: the reference {does}; set data.{setting}={instead} or"
                " data.backend=fast"
            )


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
    in_workers = config.augment_on == "worker" or config.resize == "linear"
    if images is None or in_workers or others:
        return ""
    if images.nbytes > LARGEST_IN_MEMORY:
        return ""
    return f"{len(images):,} images of {images.shape[2]}x{images.shape[1]} fit in memory"


def _choose_place(
    config: Data,
    dataset: Callable[..., ViewDataset],
    device: torch.device,
    workers: int,
    batch_size: int,
    compiled: bool,
) -> Way:
    # on a CPU, compiling would take longer than the rest of the measurement by far
    on_device = dataset(True, compiled and device.type == "cuda")
    assert isinstance(on_device.views, FastViews)
    if config.augment_on != "auto":
        return Way("fast", config.augment_on, "as given")
    if not on_device.views.leaves_work:
        return Way("fast", "worker", "nothing that a device could do")
    if device.type == "meta":
        return Way("fast", "worker", "not measured")
    return Way("fast", *broadcast_object(cheaper_place(on_device, device, workers, batch_size)))
