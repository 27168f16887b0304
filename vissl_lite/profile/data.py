"""`vissl-lite bench data config=RECIPE [key=value ...]`: what an image costs before training.

Prints a table; docs/data.md explains it.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from vissl_lite.config import Config
from vissl_lite.data.choose import make_dataset
from vissl_lite.data.dataset import ViewDataset
from vissl_lite.data.decode import decode
from vissl_lite.data.fast import FastViews
from vissl_lite.data.picture import Picture, open_picture
from vissl_lite.data.resident import MemoryDataset
from vissl_lite.data.resize import crop_resize
from vissl_lite.data.sampler import Request
from vissl_lite.data.transform import Transform
from vissl_lite.data.views import Draws, ViewGroup, Views
from vissl_lite.engine.build import build_source, build_views
from vissl_lite.engine.order import build_order
from vissl_lite.overrides import compose
from vissl_lite.parallel.process import choose_device
from vissl_lite.profile.settings import json_file, split_words, whole_number

STAGES = {
    "source": "read the bytes",
    "decode": "",
    "crop": "what fixes the size",
    "colour": "flips, colours, blur",
    "collate": "one batch of all",
    "device": "copy, what was left",
}
Cost = dict[str, float]  # stage -> CPU seconds per image


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


def main(words: Sequence[str]) -> int:
    """The command; returns its exit code.

    Raises:
        ConfigError: a wrong setting, or whatever would stop a run at its start.
    """
    readers = {"images": whole_number, "rounds": whole_number, "json": json_file}
    settings, rest = split_words(words, readers, DataSettings, "bench data")
    result = bench_data(compose(rest), settings)
    print_report(result)
    if settings.json:
        settings.json.write_text(json.dumps(result, indent=1))
    return 0


def bench_data(config: Config, settings: DataSettings) -> dict[str, Any]:
    """CPU seconds per image, stage by stage, of both back ends and of the bound; one thread.

    A stage is the difference between two measurements, with and without it; one that costs next to
    nothing may come out below zero, and is shown as zero. The bound is what no
    pipeline with the same crops can go below: one read, one decode, one antialiased resize per
    crop. All are measured in turn, round by round, so that what else the machine does hits all
    alike; the medians of the rounds are kept.
    """
    torch.set_num_threads(1)
    device = choose_device(config.device)
    source, views = build_source(config), build_views(config)
    order, _ = build_order(config, source)
    request = Request(0, 0, np.arange(min(settings.images, len(order))))
    dataset, way = make_dataset(config.data, source, views, order, config.seed, device, workers=1)
    plain = ViewDataset(source, views, order, config.seed)
    indices = order.indices(0, request.positions).tolist()
    kinds: dict[str, dict[str, Callable[[], Any]]] = {
        "bound": {"decode": bound(plain, request)},
        "reference": _steps(plain, indices, request, device),
    }
    chosen = config.data.augment_on if config.data.backend == "fast" else "auto"
    for place in ("worker", "device") if chosen == "auto" else (chosen,):
        fast = ViewDataset(source, FastViews(views, place == "device"), order, config.seed)
        kinds[f"fast, {place}"] = _steps(fast, indices, request, device)
    if isinstance(dataset, MemoryDataset):
        kinds["memory"] = {"device": lambda: _done(dataset[request], device)}
    return {
        "recipe": config.recipe,
        "source": repr(source),
        "views": " + ".join(f"{g.count} x {g.size} px" for g in views.groups),
        "device": str(device),
        "way": str(way),
        "images": len(request.positions),
        "rounds": settings.rounds,
        "cost": _measure(kinds, len(request.positions), settings.rounds),
    }


def _measure(kinds: dict[str, dict[str, Callable]], images: int, rounds: int) -> dict[str, Cost]:
    """Stage by stage: the median over rounds of the difference to the stage before."""
    found: dict[str, list[Cost]] = {kind: [] for kind in kinds}
    for round_ in range(rounds + 1):
        for kind, steps in kinds.items():
            cost, before = {}, 0.0
            for stage, call in steps.items():
                start = time.process_time()
                call()
                spent = (time.process_time() - start) / images
                cost[stage] = spent if stage == "device" else spent - before
                before = spent
            if round_:  # the first one imports, compiles, warms up
                found[kind].append(cost)
    return {
        kind: {stage: statistics.median(c[stage] for c in costs) for stage in costs[0]}
        for kind, costs in found.items()
    }


def _steps(
    dataset: ViewDataset, indices: list[int], request: Request, device: torch.device
) -> dict[str, Callable[[], Any]]:
    """Longer and longer parts of the way of the same images."""
    fast = isinstance(dataset.views, FastViews)
    views = dataset.views.views if isinstance(dataset.views, FastViews) else dataset.views
    cropping = Views([_crops_only(group) for group in views.groups])
    only_crops = FastViews(cropping, False) if fast else cropping
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
    if batch.unfinished or device.type != "cpu":
        steps["device"] = lambda: _done(dataset.finish(batch.to(device)), device)
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


def _done(batch: Any, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bound(dataset: ViewDataset, request: Request) -> Callable[[], None]:
    """One decode and one antialiased resize per crop; images and crops are at hand beforehand."""
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
                crop_resize(pixels, box, outs[g].shape[:2], "bilinear", outs[g])

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


def print_report(result: dict[str, Any], console: Console | None = None) -> None:
    """Prints what `bench_data` returned, 100 columns wide."""
    console = console or Console(highlight=False, width=100)
    console.print(
        f"{result['source']}, {result['views']}\n"
        f"{result['images']} images, medians of {result['rounds']} rounds, CPU time of one thread;"
        f" device {result['device']}\n"
        "bound: one decode and one antialiased resize per crop\n"
        f"chosen: {result['way']}\n"
    )
    cost = result["cost"]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("ms per image")
    for kind in cost:
        table.add_column(kind, justify="right")
    for stage, meaning in STAGES.items():
        cells = [f"{1e3 * max(0, c[stage]):,.2f}" if stage in c else "" for c in cost.values()]
        if any(cells):
            table.add_row(stage, *cells, meaning)
    total = {kind: sum(c.values()) for kind, c in cost.items()}
    table.add_row("all", *[f"{1e3 * t:,.2f}" for t in total.values()])
    table.add_row("images/s per core", *[f"{1 / t:,.0f}" for t in total.values()])
    ratios = [f"{total['reference'] / t:.1f}x" for t in total.values()]
    table.add_row("of the reference", *ratios)
    table.add_row("of the bound", *[f"{total['bound'] / t:.0%}" for t in total.values()])
    console.print(table)
