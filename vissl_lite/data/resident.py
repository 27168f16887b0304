"""Small images that stay on the device: no workers, no decoding, no Python per image.

Shape suffixes: N images of the source, B of a batch, H, W, C of an image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vissl_lite.data.batch import Batch, Tags
from vissl_lite.data.dataset import pack_labels, pack_tags
from vissl_lite.data.decode import BrokenImage
from vissl_lite.data.memory import MemoryViews
from vissl_lite.data.picture import open_picture
from vissl_lite.data.sampler import Order, Request
from vissl_lite.data.views import Views
from vissl_lite.errors import ConfigError
from vissl_lite.progress import counter


class MemoryDataset:
    """All images of a source as one tensor; `dataset[request]` is a finished batch on its device.

    Args:
        images: all of them, if the source has them so (`held_images`); None to decode them.
        views: whose transforms all have an `on_batch`.
        device: where images, labels and tags are kept.
        compiled_for: see `MemoryViews`.

    Raises:
        ConfigError: the images are not of one size, or one cannot be read.
    """

    def __init__(
        self,
        source: Any,
        images: np.ndarray | None,
        views: Views,
        order: Order,
        seed: int,
        device: torch.device,
        compiled_for: int = 0,
    ):
        self.source, self.order, self.seed, self.device = source, order, seed, device
        images_NHWC = decoded(source) if images is None else in_colour(images)
        self.label_N, self.tags = targets(source)
        on_device = torch.from_numpy(images_NHWC).to(device)
        self.views = MemoryViews(views, on_device, seed, compiled_for)

    def __getitem__(self, request: Request) -> Batch:
        index_B = torch.from_numpy(self.order.indices(request.epoch, request.positions))
        batch = Batch(
            views=[],
            index_B=index_B,
            label_B=None if self.label_N is None else self.label_N[index_B],
            tags=None if self.tags is None else self.tags.select(index_B),
            step=request.step,
            broken=[],
        )
        batch = (batch.pin_memory() if self.device.type == "cuda" else batch).to(self.device)
        batch.views = self.views.batch(batch.index_B, request.positions, request.epoch)
        return batch

    def finish(self, batch: Batch) -> Batch:
        """Nothing is left to do."""
        return batch


def held_images(source: Any) -> np.ndarray | None:
    """All images at once, [N, H, W] or [N, H, W, 3], of a source that has them so."""
    return source.images() if hasattr(source, "images") else None


def in_colour(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, 3]."""
    images = images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=-1)
    return np.ascontiguousarray(images)


def decoded(source: Any) -> np.ndarray:
    """uint8 [N, H, W, 3]: every image of a source read and decoded once."""
    first = _pixels(source, 0)
    images_NHWC = np.empty((len(source), *first.shape), np.uint8)
    with counter("decoding images into memory", len(source)) as progress:
        for i in range(len(source)):
            pixels = _pixels(source, i)
            if pixels.shape != first.shape:
                raise ConfigError(
                    f"data.in_memory: {source[i].name or f'image {i}'} has {_size(pixels)} pixels"
                    f" and the first image {_size(first)}; only images of one size are kept in"
                    " memory: set data.in_memory=false"
                )
            images_NHWC[i] = pixels
            progress.add()
    return images_NHWC


def _pixels(source: Any, index: int) -> np.ndarray:
    sample = source[index]
    try:
        return open_picture(sample.image, sample.name).pixels()
    except BrokenImage as error:
        raise ConfigError(
            f"data.in_memory: {error}; leave it out, or set data.in_memory=false, which replaces it"
        ) from error


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def targets(source: Any) -> tuple[Tensor | None, Tags | None]:
    """Class ids [N], -1 where there is none, and tags, of a source that has them."""
    labels = source.all_labels() if hasattr(source, "all_labels") else None
    tags = source.all_tags() if hasattr(source, "all_tags") else None
    if labels is not None:
        return torch.from_numpy(np.asarray(labels, np.int64)), None
    if tags is not None:
        values, offsets = tags
        rows: Any = np.split(np.asarray(values), np.asarray(offsets)[1:-1])
        return None, Tags.pack(rows)
    if source.num_classes is None:
        return None, None
    samples = [source[i] for i in range(len(source))]
    return pack_labels(samples), pack_tags(samples)
