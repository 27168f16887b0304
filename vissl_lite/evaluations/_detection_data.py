"""Images and boxes for a detector: in an order and with flips that follow from the seed.

Shape suffixes: C channels, H, W rows and columns of an image, K objects of it. Boxes are xyxy.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset

from vissl_lite.data.batch import Sample
from vissl_lite.data.decode import BrokenImage, decode
from vissl_lite.data.random import generator, permute
from vissl_lite.data.views import Views
from vissl_lite.data.workers import from_workers, tell
from vissl_lite.errors import ConfigError
from vissl_lite.evaluations._coco import Coco
from vissl_lite.evaluations._coco_masks import decoded
from vissl_lite.parallel.collectives import is_distributed, rank, world_size

if TYPE_CHECKING:
    from vissl_lite.engine.bench import Bench

STREAM = 15  # of `generator`


@dataclass(frozen=True)
class Place:
    """An image, and where in the training it comes."""

    index: int
    epoch: int = 0
    position: int = 0


@dataclass
class Picture:
    """A decoded image uint8 [C, H, W] with what torchvision's detectors take of its objects.

    Attributes:
        target: boxes [K, 4], labels [K] from 1, maybe masks uint8 [K, H, W].
        broken: names of images that could not be read and were replaced by the next one.
    """

    image_id: int
    image_CHW: Tensor
    target: dict[str, Tensor]
    broken: tuple[str, ...] = ()


def training_order(
    images: int, batch_size: int, iterations: int, seed: int, start: int = 0
) -> Iterator[list[Place]]:
    """The images of this process for every step; a batch may reach into the next epoch."""
    for step in range(start, iterations):
        own = range(step * batch_size + rank(), (step + 1) * batch_size, world_size())
        yield [Place(_nth(p % images, images, seed, p // images), *divmod(p, images)) for p in own]


def check_batch(batch_size: int, place: str) -> None:
    """
    Raises:
        ConfigError: the images of a step do not divide among the processes.
    """
    if batch_size % world_size():
        raise ConfigError(
            f"{place}.batch_size: {batch_size} images do not divide among {world_size()} processes"
        )


def once_each(images: int, batch_size: int) -> list[list[Place]]:
    """Every image once; as many batches on every rank, the last ones maybe empty."""
    own = [Place(index) for index in range(rank(), images, world_size())]
    most = math.ceil(math.ceil(images / world_size()) / batch_size)
    return [own[i * batch_size : (i + 1) * batch_size] for i in range(most)]


def _nth(position: int, images: int, seed: int, epoch: int) -> int:
    return int(permute(np.array([position]), images, seed, epoch)[0])


class Rows:
    """Dicts as JSON in one shared tensor: workers read it instead of copying lists of objects."""

    def __init__(self, rows: Iterable[Any]):
        encoded = [json.dumps(row).encode() for row in rows]
        self.bytes = torch.frombuffer(bytearray(b"".join(encoded)), dtype=torch.uint8)
        self.ends = torch.tensor([0, *map(len, encoded)]).cumsum(0)
        self.bytes.share_memory_()
        self.ends.share_memory_()

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        return json.loads(self.bytes[self.ends[index] : self.ends[index + 1]].numpy().tobytes())

    def digest(self) -> str:
        """Of all that the rows say."""
        return hashlib.blake2b(self.bytes.numpy().data, digest_size=16).hexdigest()


class Pictures(Dataset[list[Picture]]):
    """`pictures[places]`: the images of a batch.

    Args:
        training: only images with objects, flipped half the time where `flip` says so, crowds left
            out, a broken image replaced by the next one; otherwise every image as it is, a broken
            one left out.
        masks: whether targets have masks.
        place: in the config, for messages.
    """

    def __init__(
        self, coco: Coco, *, training: bool, masks: bool, flip: bool, seed: int, place: str
    ):
        of_image, label_of = coco.by_image(), coco.labels()
        self.folder, self.training, self.masks = coco.folder, training, masks
        self.flip, self.seed, self.place = flip, seed, place
        self.rows = Rows(
            {
                **image,
                "boxes": [entry["bbox"] for entry in objects],
                "labels": [label_of[entry["category_id"]] for entry in objects],
                "masks": [entry["segmentation"] for entry in objects] if masks else [],
            }
            for image in coco.images
            for objects in [[e for e in of_image[image["id"]] if not e["iscrowd"]]]
            if objects or not training
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: list[Place]) -> list[Picture]:
        read = self._training_picture if self.training else self._picture
        return [read(place) for place in places]

    def _training_picture(self, place: Place) -> Picture:
        broken: list[str] = []
        for offset in range(len(self)):
            index = (place.index + offset) % len(self)
            found = self._picture(Place(index, place.epoch, place.position))
            if not found.broken:
                found.broken = tuple(broken)
                return self._flipped(found, place) if self.flip else found
            broken += found.broken
        raise ConfigError(
            f"{self.place}.images_train: not one image can be read, such as {broken[0]}"
        )

    def _picture(self, place: Place) -> Picture:
        tell(place.index)
        row = self.rows[place.index]
        try:
            image = decode(self.folder / row["file_name"])
        except BrokenImage:
            return Picture(row["id"], torch.empty(0), {}, (row["file_name"],))
        image_CHW = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return Picture(row["id"], image_CHW, self._target(row))

    def _target(self, row: dict[str, Any]) -> dict[str, Tensor]:
        xywh_K4 = torch.tensor(row["boxes"], dtype=torch.float64).reshape(-1, 4)
        edge = torch.tensor([row["width"], row["height"]] * 2)
        xyxy_K4 = torch.cat([xywh_K4[:, :2], xywh_K4[:, :2] + xywh_K4[:, 2:]], dim=1)
        boxes_K4 = torch.minimum(xyxy_K4.clamp_min(0), edge).float()
        target = {"boxes": boxes_K4, "labels": torch.tensor(row["labels"], dtype=torch.int64)}
        if self.masks:
            size = row["height"], row["width"]
            masks = [decoded(mask, size, self.place) for mask in row["masks"]]
            target["masks"] = torch.from_numpy(np.stack(masks)) if masks else torch.empty(0, *size)
        return target

    def _flipped(self, found: Picture, place: Place) -> Picture:
        """x becomes W - x, half the time."""
        if generator(self.seed, place.epoch, place.position, 0, STREAM).random() < 0.5:
            found.image_CHW = found.image_CHW.flip(-1)
            boxes_K4 = found.target["boxes"]
            boxes_K4[:, [0, 2]] = found.image_CHW.shape[-1] - boxes_K4[:, [2, 0]]
            if "masks" in found.target:
                found.target["masks"] = found.target["masks"].flip(-1)
        return found


class Names:
    """The images of rows by their names alone."""

    def __init__(self, rows: Rows):
        self.rows = rows

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[index]
        return Sample(None, name=row["image"] if "image" in row else row["file_name"])


def batches(dataset: Any, order: Iterable[list[Place]], workers: int) -> Iterator[Any]:
    """`dataset[places]` for every list of places, read by `workers` processes."""
    if workers:
        yield from from_workers(dataset, order, workers, Names(dataset.rows), Views([]))
    else:
        yield from (dataset[places] for places in order)


def of_all_ranks(rows: list[Any]) -> list[Any]:
    """The rows of all processes, in rank order, on each of them."""
    if not is_distributed():
        return rows
    every: list[Any] = [None] * world_size()
    dist.all_gather_object(every, rows)
    return [row for part in every for row in part]


def tell_broken(bench: Bench, broken: set[str], name: str, split: str) -> None:
    """A note on the unreadable images of all ranks; they call it together."""
    names = sorted(set(of_all_ranks(list(broken))))
    if names:
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        bench.note(f"{name}: {len(names)} images of images_{split} cannot be read: {shown}")
