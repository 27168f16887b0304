"""Features of labelled images: each image once, in the order of its source, float32, on the CPU.

Shape suffixes: N images of a source, B of a batch, D features of a layer, H, W, C of an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vissl_lite.data.batch import Sample, Tags
from vissl_lite.data.decode import BrokenImage
from vissl_lite.data.fast import FastViews
from vissl_lite.data.views import Views
from vissl_lite.data.workers import from_workers, tell
from vissl_lite.engine.ahead import OneAhead, Results
from vissl_lite.engine.build import layer_widths
from vissl_lite.engine.numerics import Numerics, autotuned
from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.model import SSLModel
from vissl_lite.parallel.collectives import all_gather_cat, rank, world_size
from vissl_lite.parallel.wrap import release

UNLABELLED = -1  # in place of a class id, of images asked for by their tags or for having none
LEFT_OUT, BROKEN = -2, -3  # likewise, while features are being computed
EXCHANGED_ROWS = 4096  # per process and collective: 32 MiB of 2048 features

Target = Literal["label", "tags", "unlabelled"]


@dataclass
class FeatureSet:
    """What the labelled images of one source look like to a model.

    Attributes:
        features: float32 [N, D] on the CPU for every layer asked for.
        label_N: int64 class ids. Images without what was asked for, labels or tags, are left out,
            and so are unreadable ones. -1 where an image was not asked for by its label and has
            none.
        broken: names of the unreadable images.
        tags: of the same images, if tags were asked for.
        index_N: their positions in the source; None stands for 0, ..., N - 1.
        left_out: number of images without what was asked for.
    """

    features: dict[str, Tensor]
    label_N: Tensor
    broken: list[str]
    tags: Tags | None = None
    index_N: Tensor | None = None
    left_out: int = 0


@torch.no_grad()  # not inference_mode: tensors made there, such as caches, would break training
def extract(
    model: SSLModel,
    source: Any,
    views: Views | FastViews,
    layers: Sequence[str] | None = None,
    *,
    device: torch.device,
    numerics: Numerics,
    batch_size: int = 256,
    workers: int = 0,
    target: Target = "label",
    epoch: int = 0,
    stop_point: Callable[[], None] = lambda: None,
) -> FeatureSet:
    """Features of all images of `source` with a label; all ranks call it and get the same.

    Rank r of W computes the images r, r + W, ...; none is padded or repeated. The model computes in
    eval mode, in the precision of `numerics`, and is left as it was.

    Args:
        views: one group of one crop.
        layers: trunk layers, averaged over their maps, "embedding", the output of the last head
            that is no scorer, or "logits", that of the scorer; default: the layer that feeds the
            heads.
        batch_size: images per process.
        target: "tags": of all images with tags instead, possibly none, and these tags too;
            "unlabelled": of the images without a label.
        epoch: random transforms do other things in other epochs.
        stop_point: called before each batch, on all ranks equally often; may raise to give up.

    Raises:
        ConfigError: a layer that the model does not have.
        WorkerDied: one of the processes that read images has ended.
    """
    layers = list(layers or [model.layer])
    check_layers(model, layers)
    width = layer_widths(model)
    features = {layer: torch.zeros(len(source), width[layer]) for layer in layers}
    label_N = torch.full((len(source),), LEFT_OUT)
    tagged = [torch.arange(0)]  # positions of the images that `tags` belong to
    tags: list[Sequence[int]] = []
    chunks = _equally_many(LabelledImages(source, views, target, epoch), batch_size, workers)

    def compute(images_BHWC: Tensor) -> Results:
        stop_point()
        whole = len(images_BHWC) == batch_size  # a training may have images of this shape, too
        with autotuned(whole), numerics.autocast(device):
            found = model.layer_features(images_BHWC, layers)
        return {layer: found[layer].float() for layer in layers}

    with evaluating(model):
        for chunk, found in OneAhead(chunks, compute, device):
            label_N[chunk.broken] = BROKEN
            label_N[chunk.index_B] = chunk.label_B
            tagged.append(chunk.index_B)
            tags += chunk.tags
            for layer in layers:
                features[layer][chunk.index_B] = found[layer]
    found_tags = exchange_tags(torch.cat(tagged), tags) if target == "tags" else None
    lowest = 0 if target == "label" else UNLABELLED
    return _readable(source, *_exchanged(features, label_N), found_tags, lowest)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        release(model)
        for module, mode in modes:
            module.training = mode


def check_layers(model: SSLModel, layers: Sequence[str]) -> None:
    """
    Raises:
        ConfigError: the model does not have one of them.
    """
    known = list(layer_widths(model))
    for layer in layers:
        if layer not in known:
            close = did_you_mean(layer, known) or ";"
            raise ConfigError(
                f"evaluations: the model has no layer {layer!r}{close} it has {', '.join(known)}"
            )


# ---------------------------------------------------------------- images of this process


@dataclass
class Chunk:
    """A batch of readable labelled images, and the indices of the unreadable ones.

    `tags` are those of the B images, or empty when labels are asked for.
    """

    images_BHWC: Tensor
    label_B: Tensor
    tags: list[Sequence[int]]
    index_B: Tensor
    broken: Tensor


class LabelledImages(Dataset[Chunk]):
    """`dataset[indices]`: those of a source's images at these indices that `target` asks for."""

    def __init__(
        self, source: Any, views: Views | FastViews, target: Target = "label", epoch: int = 0
    ):
        self.source, self.views, self.target, self.epoch = source, views, target, epoch

    def __getitem__(self, indices: Sequence[int] | np.ndarray) -> Chunk:
        index_B = np.asarray(indices, np.int64)
        size = self.views.sizes[0]
        images_1BHWC = np.empty((1, len(index_B), size, size, 3), np.uint8)
        draws: Any = self.views.draw(0, self.epoch, index_B)  # the same whenever it is asked for
        labels, tags, kept, broken = [], [], [], []
        for b, index in enumerate(index_B.tolist()):
            tell(index)
            try:
                sample = self.source[index]
                if not _wanted(sample, self.target):
                    continue
                self.views.write(sample.image, sample.name, draws, b, [images_1BHWC])
            except BrokenImage:
                broken.append(index)
                continue
            kept.append(b)
            labels.append(UNLABELLED if sample.label is None else sample.label)
            if self.target == "tags":
                tags.append(sample.tags)
        images = images_1BHWC[0] if len(kept) == len(index_B) else images_1BHWC[0, kept]
        return Chunk(
            torch.from_numpy(images),
            torch.tensor(labels, dtype=torch.int64),
            tags,
            torch.from_numpy(index_B[kept]),
            torch.tensor(broken, dtype=torch.int64),
        )


def _wanted(sample: Sample, target: str) -> bool:
    if target == "unlabelled":
        return sample.label is None
    return getattr(sample, target) is not None


def _equally_many(dataset: LabelledImages, batch_size: int, workers: int) -> Iterator[Chunk]:
    """As many chunks on every rank, the last one maybe empty: shards are gathered together."""
    size, world = len(dataset.source), world_size()
    own = np.arange(rank(), size, world)
    chunks = [own[i : i + batch_size] for i in range(0, len(own), batch_size)]
    if workers:
        yield from from_workers(dataset, chunks, workers, dataset.source, dataset.views)
    else:
        yield from (dataset[chunk] for chunk in chunks)
    most_images = math.ceil(size / world)
    for _ in range(math.ceil(most_images / batch_size) - len(chunks)):
        yield dataset[()]


# ---------------------------------------------------------------- images of all processes


def _exchanged(features: dict[str, Tensor], label_N: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    return {layer: exchange(x_ND) for layer, x_ND in features.items()}, exchange(label_N)


def exchange(x_N: Tensor) -> Tensor:
    """Fills in, in place, the rows of the other processes: rank r of W has rows r, r + W, ...

    Block by block, so that no process holds a second copy of all rows.
    """
    size, world = len(x_N), world_size()
    own = torch.arange(rank(), size, world)
    for start in range(0, -(-size // world) if world > 1 else 0, EXCHANGED_ROWS):
        block = slice(start, start + EXCHANGED_ROWS)
        rows = torch.cat([torch.arange(r, size, world)[block] for r in range(world)])
        x_N[rows] = all_gather_cat(x_N[own[block]])
    return x_N


def exchange_tags(index_B: Tensor, rows: Sequence[Sequence[int]]) -> Tags:
    """Tags of the images of all processes, in the order of the source.

    Args:
        index_B: positions in the source of this process's images.
        rows: the class ids of each of them.
    """
    own = Tags.pack(rows)
    counts_N, values_T = all_gather_cat(own.counts_B()), all_gather_cat(own.values_T)
    offsets = torch.cat([counts_N.new_zeros(1), counts_N.cumsum(0)])
    return Tags(values_T, offsets).select(all_gather_cat(index_B).argsort())


def _readable(
    source: Any, features: dict[str, Tensor], label_N: Tensor, tags: Tags | None, lowest: int
) -> FeatureSet:
    """Without the images that have no features; these have a label of at least `lowest`."""
    broken = [source[i].name or f"image {i}" for i in (label_N == BROKEN).nonzero()[:, 0].tolist()]
    left_out, kept_N = int((label_N == LEFT_OUT).sum()), label_N >= lowest
    if not kept_N.all():
        features = {layer: x_ND[kept_N] for layer, x_ND in features.items()}
    return FeatureSet(features, label_N[kept_N], broken, tags, kept_N.nonzero()[:, 0], left_out)
