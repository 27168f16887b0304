"""Where flips and colours cost less: in the workers or on the device, as measured.

Shape suffixes: V crops of one view group, B images, N = V * B, P parameters of a transform, H, W, C
of an image.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from vissl_lite.data.batch import Batch
from vissl_lite.data.dataset import ViewDataset
from vissl_lite.data.fast import FastViews
from vissl_lite.data.sampler import Request

IMAGES, ROUNDS = 32, 3  # of a measurement
LARGEST_BATCH = 256  # images that the device does at once, unless it is compiled for more
PIXELS = 2**19  # that a CPU does at once, as device: a tenth of a second, and its cost per pixel
MARGIN = 1.5  # below this ratio noise could decide, and the way would differ from run to run

Place = Literal["worker", "device"]


def cheaper_place(
    on_device: ViewDataset, device: torch.device, workers: int, batch_size: int
) -> tuple[Place, str]:
    """The place, and what was measured, on crops of the first images of the first epoch.

        worker      CPU time of the colours of 32 images, or of a batch if that is smaller, over the
                    number of workers
        device      time until they are done; on a GPU of a whole batch, compiled as in the run, on
                    a CPU of a part of one

    Args:
        on_device: leaves flips and colours to the device.
        batch_size: images per step of this process; 0: unknown.
    """
    few = min(IMAGES, batch_size or IMAGES, len(on_device.order))
    assert isinstance(on_device.views, FastViews)
    crops = on_device[Request(0, 0, np.arange(few))]
    many = _repeated(crops, _at_once(on_device, device, batch_size or few)).to(device)
    in_worker, finish = _by_worker(on_device.views, crops), partial(on_device.finish, many)
    processes = max(1, workers)
    finish()  # what is done only once, such as compiling
    seconds: dict[Place, float] = {
        "worker": _best(time.thread_time, in_worker) / few / processes,
        "device": _best(partial(_now, device), finish) / len(many),
    }
    plural = "es" if processes > 1 else ""
    compiled = ", compiled" if on_device.compiled_for else ""
    return _cheaper(seconds, device), (
        f"measured, ms/image of flips and colours: worker {1e3 * seconds['worker']:.2f} ({few}"
        f" images, CPU time over {processes} process{plural}), device"
        f" {1e3 * seconds['device']:.2f} ({len(many)} images{compiled})"
    )


def _cheaper(seconds: dict[Place, float], device: torch.device) -> Place:
    places: tuple[Place, Place] = ("worker", "device")
    first, other = places[::-1] if device.type == "cuda" else places
    return other if MARGIN * seconds[other] < seconds[first] else first


def _at_once(dataset: ViewDataset, device: torch.device, batch_size: int) -> int:
    """How many images the device is given; what is compiled is for a whole batch."""
    if dataset.compiled_for:
        return batch_size
    pixels = sum(count * size**2 for count, size in zip(dataset.views.counts, dataset.views.sizes))
    most = max(1, PIXELS // pixels) if device.type == "cpu" else LARGEST_BATCH
    return min(batch_size, most, LARGEST_BATCH)


def _repeated(batch: Batch, images: int) -> Batch:
    """The same images over and over."""
    b = torch.arange(images) % len(batch)
    return Batch(
        views=[view_VBHWC[:, b] for view_VBHWC in batch.views],
        index_B=batch.index_B[b],
        unfinished=[[p_VBP[:, b] for p_VBP in group] for group in batch.unfinished],
    )


def _by_worker(views: FastViews, crops: Batch) -> Callable[[], None]:
    """Does what is left to the device as a worker does it, crop by crop."""
    groups = []
    for chain, view_VBHWC, p_VBP in zip(views.chains, crops.views, crops.unfinished):
        numbers = zip(*(p.flatten(0, 1).tolist() for p in p_VBP))
        crops_NHWC = view_VBHWC.flatten(0, 1).numpy()
        groups.append((chain.transforms[chain.device :], list(zip(crops_NHWC, numbers))))

    def run() -> None:
        for transforms, rows in groups:
            for crop_HWC, numbers in rows:
                out_HWC = np.empty_like(crop_HWC)
                for transform, p in zip(transforms, numbers):
                    crop_HWC = transform.on_array(crop_HWC, p, out_HWC)

    return run


def _now(device: torch.device) -> float:
    """Once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _best(clock: Callable[[], float], call: Callable[[], Any]) -> float:
    times = []
    for _ in range(ROUNDS):
        start = clock()
        call()
        times.append(clock() - start)
    return min(times)  # other work on the machine only ever adds time
