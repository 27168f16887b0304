"""`vissl-lite bench data config=RECIPE [key=value ...]`: what an image costs before training.

Prints a table; docs/profile.md explains it. Shape suffix: K images that can be read.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vissl_lite.config import Config
from vissl_lite.data.choose import make_dataset
from vissl_lite.data.dataset import ViewDataset
from vissl_lite.data.decode import BrokenImage, decode
from vissl_lite.data.fast import FastViews
from vissl_lite.data.loader import choose_workers
from vissl_lite.data.picture import Picture, open_picture
from vissl_lite.data.resident import MemoryDataset
from vissl_lite.data.resize import crop_resize
from vissl_lite.data.sampler import Order, Request
from vissl_lite.data.transform import Transform
from vissl_lite.data.views import Draws, ViewGroup, Views
from vissl_lite.engine.build import build_source, build_views
from vissl_lite.engine.order import build_order
from vissl_lite.errors import ConfigError
from vissl_lite.overrides import compose
from vissl_lite.parallel.process import choose_device
from vissl_lite.profile.data_report import print_report
from vissl_lite.profile.settings import json_file, split_words, whole_number

ON_DEVICE = ("transfer", "device")  # stages that a GPU takes off the core
Cost = dict[str, float]  # stage -> seconds per image


@dataclass(frozen=True)
class DataSettings:
    """Of the measurement.

    Attributes:
        images: of the first epoch; each is seen once per round.
        rounds: medians are taken over so many.
        json: file for the results.
    """

    images: int = 128
    rounds: int = 5
    json: Path | None = None


READERS = {"images": whole_number, "rounds": whole_number, "json": json_file}
USAGE = f"""usage: vissl-lite bench data config=RECIPE [key=value ...]

images   of the first epoch; each is seen once per round; default {DataSettings.images}
rounds   medians are taken over so many; default {DataSettings.rounds}
json     file for the table as data
Everything else changes the recipe, as for a run.
"""


def main(words: Sequence[str]) -> int:
    """The command; returns its exit code.

    Raises:
        ConfigError: a wrong setting, or whatever would stop a run at its start.
    """
    if not words or {"-h", "--help"} & set(words):
        print(USAGE)
        return 0
    settings, rest = split_words(words, READERS, DataSettings, "bench data")
    result = bench_data(compose(rest, [*READERS]), settings)
    print_report(result)
    if settings.json:
        settings.json.write_text(json.dumps(result, indent=1))
    return 0


def bench_data(config: Config, settings: DataSettings) -> dict[str, Any]:
    """Seconds per image, stage by stage, of both back ends and of the bound; one thread.

    A stage is the difference between two measurements, with and without it; one that costs next to
    nothing may come out below zero. The bound is what no pipeline with the same crops can go below:
    one decode, one antialiased resize per crop. All are measured in turn, round by round,
    so that what else the machine does hits all alike; the medians of the rounds are kept. Transfer
    and device are measured by themselves: on a GPU by the clock, all else in CPU time.

    Raises:
        ConfigError: none of the images can be read.
    """
    torch.set_num_threads(1)
    device = choose_device(config.device)
    source, views = build_source(config), build_views(config)
    order, _ = build_order(config, source)
    positions_K, broken = readable(source, order, settings.images)
    request = Request(0, 0, positions_K)
    indices = order.indices(0, positions_K).tolist()
    steps = max(1, _images_of_the_run(config, len(order)) // len(indices))
    workers = choose_workers(config.data.workers, device)

    def dataset(**changes: Any) -> tuple[Any, Any]:
        data = replace(config.data, **changes)
        seen = (source, views, order, config.seed, device, workers, len(indices), steps)
        return make_dataset(data, *seen)

    chosen, way = dataset()
    plain, linear = ViewDataset(source, views, order, config.seed), config.data.resize == "linear"
    kinds: dict[str, dict[str, Callable[[], Any]]] = {
        "bound": {"decode": bound(plain, request)},
        "reference": _steps(plain, indices, request, device),
    }
    augment_on = config.data.augment_on if config.data.backend == "fast" else "auto"
    for place in ("worker", "device") if augment_on == "auto" else (augment_on,):
        fast, _ = dataset(backend="fast", in_memory=False, augment_on=place)
        kinds[f"fast, {place}"] = _steps(fast, indices, request, device, linear)
    if isinstance(chosen, MemoryDataset):
        kinds["memory"] = {"device": lambda: chosen[request]}
    return {
        "recipe": config.recipe,
        "source": repr(source),
        "views": " + ".join(f"{g.count} x {g.size} px" for g in views.groups),
        "device": str(device),
        "way": str(way),
        "images": len(indices),
        "broken": broken,
        "rounds": settings.rounds,
        "cost": _measure(kinds, len(indices), settings.rounds, device),
    }


def readable(source: Any, order: Order, images: int) -> tuple[np.ndarray, list[str]]:
    """Of the first positions of epoch 0: [K] those whose images can be read; why others cannot."""
    positions, found, broken = np.arange(min(images, len(order))), [], []
    for position, index in zip(positions.tolist(), order.indices(0, positions).tolist()):
        try:
            sample = source[index]
            decode(sample.image, sample.name)
            found.append(position)
        except BrokenImage as error:
            broken.append(str(error))
    if not found:
        raise ConfigError(
            f"data.source: none of {len(positions)} images can be read, the first: {broken[0]};"
            " check that the source points at images"
        )
    return np.array(found), broken


def _images_of_the_run(config: Config, epoch: int) -> int:
    """It decides whether compiling pays."""
    train = config.train
    images = round(train.epochs * epoch)
    return min(images, train.max_steps * train.batch_size) if train.max_steps else images


def _measure(
    kinds: dict[str, dict[str, Callable]], images: int, rounds: int, device: torch.device
) -> dict[str, Cost]:
    """Stage by stage: the median over rounds of the difference to the stage before."""
    found: dict[str, list[Cost]] = {kind: [] for kind in kinds}
    for round_ in range(rounds + 1):
        for kind, steps in kinds.items():
            cost, before = {}, 0.0
            for stage, call in steps.items():
                spent = _seconds(call, device if stage in ON_DEVICE else None) / images
                cost[stage] = spent if stage in ON_DEVICE else spent - before
                before = spent
            if round_:  # the first one imports, compiles, warms up
                found[kind].append(cost)
    return {
        kind: {stage: statistics.median(c[stage] for c in costs) for stage in costs[0]}
        for kind, costs in found.items()
    }


def _seconds(call: Callable[[], Any], device: torch.device | None) -> float:
    """Of what runs on a GPU, until it is done; of all else, CPU time."""
    if device is None or device.type != "cuda":
        start = time.process_time()
        call()
        return time.process_time() - start
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _steps(
    dataset: ViewDataset,
    indices: list[int],
    request: Request,
    device: torch.device,
    linear: bool = False,
) -> dict[str, Callable[[], Any]]:
    """Longer and longer parts of the way of the same images; then those of the device alone."""
    fast = isinstance(dataset.views, FastViews)
    cropping = Views([_crops_only(group) for group in dataset.views.groups])
    only_crops = FastViews(cropping, False, linear) if fast else cropping
    crops = ViewDataset(dataset.source, only_crops, dataset.order, dataset.seed)
    outs = [np.empty(shape, np.uint8) for shape in dataset.shapes(len(indices))]
    batch = dataset[request]
    steps: dict[str, Callable[[], Any]] = {
        "source": lambda: [_bytes(dataset.source[i].image) for i in indices],
        "decode": lambda: [_decoded(dataset.source[i].image, fast) for i in indices],
        "crop": lambda: _written(crops, indices, request, outs),
        "colour": lambda: _written(dataset, indices, request, outs),
        "collate": lambda: dataset[request],
    }
    if device.type == "cuda":
        pinned = batch.pin_memory()
        steps["transfer"] = lambda: pinned.to(device)
    if any(batch.unfinished):
        moved = batch.to(device)
        steps["device"] = lambda: dataset.finish(moved)
    return steps


def _crops_only(group: ViewGroup) -> ViewGroup:
    """The group up to the last transform that changes the size."""
    last = len(group.transforms)
    while last and isinstance(t := group.transforms[last - 1], Transform) and t.shape == "kept":
        last -= 1
    return ViewGroup(group.count, group.size, group.transforms[:last])


def _written(
    dataset: ViewDataset, indices: list[int], request: Request, outs: list[np.ndarray]
) -> None:
    """Decoded, cropped and transformed in their places; no labels, nothing collated."""
    draws: Any = dataset.views.draw(dataset.seed, request.epoch, request.positions)
    for b, index in enumerate(indices):
        sample = dataset.source[index]
        dataset.views.write(sample.image, sample.name, draws, b, outs)


def _bytes(image: Any) -> Any:
    return Path(image).read_bytes() if isinstance(image, (str, os.PathLike)) else image


def _decoded(image: Any, fast: bool) -> Any:
    return open_picture(image).pixels() if fast else decode(image)


def bound(
    dataset: ViewDataset, request: Request, resize: Callable[..., Any] = crop_resize
) -> Callable[[], None]:
    """One decode and one antialiased resize per crop; images and crops are at hand beforehand.

    Args:
        resize: takes the first five arguments of `crop_resize`.
    """
    views, indices = dataset.views, dataset.order.indices(request.epoch, request.positions)
    assert isinstance(views, Views)
    draws = views.draw(dataset.seed, request.epoch, request.positions)
    images = [_bytes(dataset.source[i].image) for i in indices.tolist()]
    boxes = [_boxes(open_picture(image), views, draws, b) for b, image in enumerate(images)]
    outs = [np.empty((size, size, 3), np.uint8) for size in views.sizes]

    def run() -> None:
        for image, crops in zip(images, boxes):
            pixels = open_picture(image).pixels()
            for g, box in crops:
                resize(pixels, box, outs[g].shape[:2], "bilinear", outs[g])

    return run


def _boxes(picture: Picture, views: Views, draws: Draws, b: int) -> list[tuple[int, list[int]]]:
    """(group, box) of every crop of image b; the whole image where a group begins otherwise."""
    found = []
    for g, group in enumerate(views.groups):
        first, whole = group.transforms[0], [0, 0, picture.width, picture.height]
        if isinstance(first, Transform) and getattr(first, "cuts", False):
            p_VP = first.parameters(draws.uniforms(g, 0)[:, b], *whole[2:])
            found += [(g, box) for box in p_VP.astype(int).tolist()]
        else:
            found += [(g, whole)] * group.count
    return found
