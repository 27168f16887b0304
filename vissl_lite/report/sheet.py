"""A contact sheet: a few images with all their crops, exactly as training makes them.

Shape suffixes: V crops of one view group, B images, S side of a crop, 3 colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from vissl_lite.config import Config
from vissl_lite.data.batch import Batch, Sample
from vissl_lite.data.choose import make_dataset
from vissl_lite.data.decode import decode
from vissl_lite.data.resident import held_images
from vissl_lite.data.sampler import Order, Request
from vissl_lite.data.transform import Transform
from vissl_lite.data.views import Draws, Views
from vissl_lite.engine import checkpoint
from vissl_lite.engine.build import build_source, build_views
from vissl_lite.parallel.collectives import is_distributed
from vissl_lite.report.draws import drawn
from vissl_lite.report.page import Html, details, html, tag
from vissl_lite.report.pictures import data_uri, picture, tiles
from vissl_lite.report.runs import Run

IMAGES, MOST_CROPS = 4, 10  # rows, pictures of crops in each
SIDE, BOXED = 112, 192  # pixels of the largest crops, of the whole image if boxes are drawn on it


def sheet_of(run: Run) -> Html | None:
    """As the run made its views; None where nothing was trained."""
    if run.config.train.epochs == 0:
        return None
    newest = run.checkpoint
    return sheet(run.config, checkpoint.read(newest / "state.pt").get("way") if newest else None)


def sheet(config: Config, way: dict[str, Any] | None = None) -> Html:
    """The first images of the first step, each whole and in all its crops.

    Args:
        way: how a run made its views, as its checkpoint says; None: chosen as a run would.

    Raises:
        ConfigError: the source cannot be opened or its images cannot be read.
    """
    source, views = build_source(config), build_views(config)
    positions = np.arange(min(IMAGES, len(source)))
    few = Few(source, Order.of(source, config.seed).indices(0, positions))
    batch = _batch(config, few, views, way)
    draws = build_views(config).draw(config.seed, 0, positions)
    crops = [view.cpu().numpy() for view in batch.views]
    rows = []
    for b, index in enumerate(batch.index_B.tolist()):
        sample = few[index]
        rows.append(_row(views, draws, crops, b, decode(sample.image, sample.name), sample.name))
    return html([tag("p", _words(views, config.seed)), tag("div", rows, class_="sheet")])


class Few:
    """Some images of a source, in this order; it is also their order in the epoch."""

    num_classes = None

    def __init__(self, source: Any, index_B: np.ndarray):
        self.source, self.index_B = source, index_B

    def __len__(self) -> int:
        return len(self.index_B)

    def __getitem__(self, b: int) -> Sample:
        return self.source[int(self.index_B[b])]

    def images(self) -> np.ndarray | None:
        """As the source has them at once, so that the same way is chosen as for all of them."""
        held = held_images(self.source)
        return None if held is None else held[self.index_B]

    def indices(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        return positions


def _batch(config: Config, few: Few, views: Views, way: dict[str, Any] | None) -> Batch:
    """By the code of training; what was compiled there gives the same views without."""
    if way is None and is_distributed():  # choosing measures, and all ranks would have to agree
        way = {"backend": "fast", "colours": "worker", "reason": "one process alone"}
    order: Any = few
    dataset, _ = make_dataset(
        *(config.data, few, views, order, config.seed, torch.device("cpu"), 0),
        batch_size=len(few),
        steps=1,
        chosen=way and {**way, "compiled": False},
    )
    return dataset.finish(dataset[Request(0, 0, np.arange(len(few)))])


def _words(views: Views, seed: int) -> str:
    groups = " and ".join(
        f"{count} crop{'s' if count > 1 else ''} of {size} x {size} pixels"
        for count, size in zip(views.counts, views.sizes)
    )
    cuts = any(_cutter(views, g) for g in range(len(views.groups)))
    boxes = ", with the boxes that the crops are made of" if cuts else ""
    return (
        f"The first images of the first step (seed {seed}, epoch 0), as the model sees them:"
        f" {groups} of each. First the whole image{boxes}."
    )


def _row(
    views: Views, draws: Draws, crops: Sequence[np.ndarray], b: int, image: Image.Image, name: str
) -> Html:
    largest = max(views.sizes)
    shown, said, boxes = [], [], []
    for g, crops_VBSS3 in enumerate(crops):
        for v in range(len(crops_VBSS3)):
            title = f"crop {len(said) + 1}"
            side = max(40, round(SIDE * views.sizes[g] / largest))
            shown.append((picture(crops_VBSS3[v, b], f"{title} of {name}", side), title))
            said.append((title, drawn(views, draws, image, g, v, b)))
            boxes.append(_box(views, draws, image, g, v, b))
    shown = shown[:MOST_CROPS]
    words = [[tag("dt", title), [tag("dd", line) for line in lines]] for title, lines in said]
    whole = _whole(image, name, boxes), "the image"
    return tag("div", tiles([whole, *shown]), details("What was drawn", tag("dl", words)))


def _box(views: Views, draws: Draws, image: Image.Image, g: int, v: int, b: int) -> list | None:
    """What the first transform cuts out of the image, if it does."""
    first = _cutter(views, g)
    if first is None:
        return None
    return first.parameters(draws.uniforms(g, 0)[v, b : b + 1], *image.size)[0, :4].tolist()


def _cutter(views: Views, g: int) -> Transform | None:
    """The first transform of a group, if it cuts."""
    first = views.groups[g].transforms[0] if views.groups[g].transforms else None
    return first if isinstance(first, Transform) and first.cuts else None


def _whole(image: Image.Image, name: str, boxes: Sequence[list | None]) -> Html:
    """The image with numbered boxes; small images are drawn larger."""
    width, height = image.size
    side = BOXED if any(boxes) else SIDE
    scale = side / max(width, height)
    stroke, letters = 2 / scale, 13 / scale
    drawn_boxes = [
        [
            tag(
                "rect", x=left, y=top, width=right - left, height=bottom - top, fill="none",
                stroke=f"var(--s{i % 8})", stroke_width=f"{stroke:.2f}",
            ),
            tag(
                "text", i + 1, x=f"{left + stroke:.2f}", y=f"{top + letters:.2f}",
                style=f"font-size:{letters:.2f}px", class_="halo",
            ),
        ]
        for i, box in enumerate(boxes)
        if box is not None
        for left, top, right, bottom in [box]
    ]  # fmt: skip
    uri = data_uri(np.asarray(image), 2 * side)
    inside = tag("image", href=uri, width=width, height=height), drawn_boxes
    size = {"width": f"{width * scale:.0f}", "height": f"{height * scale:.0f}"}
    return tag(
        "svg", tag("title", f"the whole image {name}"), inside,
        viewBox=f"0 0 {width} {height}", role="img", class_="fixed", **size,
    )  # fmt: skip
