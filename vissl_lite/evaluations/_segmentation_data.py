"""Images with a class for each pixel, from PNG label maps or from COCO's format.

Shape suffixes: B images, C channels, H, W rows and columns. Class 255 is no class.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vissl_lite.data.decode import BrokenImage, decode
from vissl_lite.data.random import generator
from vissl_lite.data.workers import tell
from vissl_lite.errors import ConfigError
from vissl_lite.evaluations._coco import Coco
from vissl_lite.evaluations._coco_masks import decoded
from vissl_lite.evaluations._detection_data import Place, Rows
from vissl_lite.parallel.collectives import on_rank_zero

IGNORED = 255
STREAM = 21  # of `generator`
LABEL_MODES = ("L", "P")  # of Pillow: one byte per pixel
ENDINGS = (".jpg", ".jpeg", ".png", ".JPEG", ".JPG", ".PNG")

Background = Literal["class", "ignore"]


@dataclass
class Scene:
    """An image uint8 [H, W, C] and its classes int64 [H, W]; None where it cannot be read.

    In testing the classes have the size of the file, the image that of the network.
    """

    image_HWC: Tensor | None
    label_HW: Tensor
    name: str


class Scenes(Dataset[list[Scene]]):
    """`scenes[places]`: the images of a batch.

    Args:
        rows: of every image, what `labels` takes, and "image", its path.
        labels: row -> classes uint8 [H, W].
        size: side of a crop, and the shorter side in testing, both multiples of `stride`.
        scale: of the shorter side in training, relative to `size`; None: testing.
    """

    def __init__(
        self,
        rows: Rows,
        labels: Callable[[dict[str, Any]], np.ndarray],
        *,
        size: int,
        stride: int,
        scale: tuple[float, float] | None,
        flip: bool,
        seed: int,
    ):
        self.rows, self.labels, self.size, self.stride = rows, labels, size, stride
        self.scale, self.flip, self.seed = scale, flip, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: list[Place]) -> list[Scene]:
        return [self._scene(place) for place in places]

    def _scene(self, place: Place) -> Scene:
        tell(place.index)
        row = self.rows[place.index]
        try:
            image, label = decode(row["image"]), Image.fromarray(self.labels(row))
        except BrokenImage:
            return Scene(None, torch.empty(0, 0, dtype=torch.int64), row["image"])
        if self.scale is None:
            image = image.resize(self._rounded(image.size), Image.Resampling.BILINEAR)
        else:
            image, label = self._crop(image, label, place)
        label_HW = torch.from_numpy(np.array(label, np.int64))
        return Scene(torch.from_numpy(np.array(image)), label_HW, row["image"])

    def _rounded(self, size: tuple[int, int]) -> tuple[int, int]:
        """The shorter side becomes `size`, the other one a multiple of the stride."""
        width, height = (
            max(1, round(side * self.size / min(size) / self.stride)) * self.stride for side in size
        )
        return width, height

    def _crop(
        self, image: Image.Image, label: Image.Image, place: Place
    ) -> tuple[Image.Image, Image.Image]:
        """Scaled, cut out and flipped at random; black without a class where the image ends."""
        rng = generator(self.seed, place.epoch, place.position, 0, STREAM)
        low, high = self.scale or (1, 1)
        factor = self.size * rng.uniform(low, high) / min(image.size)
        width, height = (max(1, round(side * factor)) for side in image.size)
        left, top = (int(rng.integers(0, max(0, side - self.size) + 1)) for side in (width, height))
        box = (left, top, left + self.size, top + self.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR).crop(box)
        label = label.resize((width, height), Image.Resampling.NEAREST)
        label = _padded(label, self.size).crop(box)
        if self.flip and rng.random() < 0.5:
            image, label = (x.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for x in (image, label))
        return image, label


def _padded(label: Image.Image, size: int) -> Image.Image:
    """At least `size` on each side, without a class beyond the image."""
    padded = Image.new("L", (max(size, label.width), max(size, label.height)), IGNORED)
    padded.paste(label)
    return padded


# ---------------------------------------------------------------- label maps


@dataclass(frozen=True)
class LabelMaps:
    """Reads a PNG of classes.

    Args:
        background: "ignore": 0 becomes no class, and 1, 2, ... become 0, 1, ...
    """

    classes: int
    background: Background
    place: str

    def __call__(self, row: dict[str, Any]) -> np.ndarray:
        """uint8 [H, W], below the number of classes, or 255.

        Raises:
            ConfigError: no label map, of another size than its image, or with unknown classes.
        """
        path = row["label"]
        try:
            with Image.open(path) as opened:
                mode, label_HW = opened.mode, np.array(opened)
        except Exception:  # damaged data make Pillow raise nearly anything
            raise ConfigError(f"{self.place}: {path} cannot be read") from None
        if mode not in LABEL_MODES:
            raise ConfigError(
                f"{self.place}: {path} has Pillow's mode {mode}; a label map has one byte per pixel"
            )
        if self.background == "ignore":  # 0 - 1 is 255 in a byte, and 255 stays what it is
            label_HW = np.where(label_HW == IGNORED, IGNORED, label_HW - np.uint8(1))
        known = label_HW[label_HW != IGNORED]
        if known.size and known.max() >= self.classes:
            raise ConfigError(
                f"{self.place}: {path} has class {known.max()} of {self.classes}, counted from 0"
            )
        return label_HW.astype(np.uint8)

    def rows(self, images: str, labels: str, where_images: str) -> Rows:
        """Image and label map of every PNG below `labels`; every one of them is read once.

        Raises:
            ConfigError: also when there are none, or a label map has no image of its size.
        """
        folder, root = Path(labels).expanduser(), Path(images).expanduser()
        paths = sorted(folder.rglob("*.png"))
        if not paths:
            raise ConfigError(f"{self.place}: no PNG files in {labels}")
        rows = [
            {"image": str(_image_of(path, folder, root, where_images)), "label": str(path)}
            for path in paths
        ]
        on_rank_zero(lambda: [self._check(row) for row in rows])
        return Rows(rows)

    def _check(self, row: dict[str, Any]) -> None:
        height, width = self(row).shape
        try:
            with Image.open(row["image"]) as opened:
                size = opened.size
        except Exception:  # counted and left out when it is needed
            return
        if size != (width, height):
            raise ConfigError(f"{self.place}: {row['label']} has not the size of {row['image']}")


def _image_of(label: Path, folder: Path, root: Path, where: str) -> Path:
    stem = root / label.relative_to(folder).with_suffix("")
    for ending in ENDINGS:
        path = stem.with_name(stem.name + ending)
        if path.is_file():
            return path
    raise ConfigError(f"{where}: no image {stem}.jpg or .png for the label map {label}")


# ---------------------------------------------------------------- COCO's format


@dataclass(frozen=True)
class Painted:
    """Paints the objects of an image, large ones first; crowds have no class."""

    background: Background
    place: str

    def __call__(self, row: dict[str, Any]) -> np.ndarray:
        first = 1 if self.background == "class" else 0
        label_HW = np.full(row["size"], 0 if first else IGNORED, np.uint8)
        for mask, label in zip(row["masks"], row["labels"]):
            value = IGNORED if label is None else label - 1 + first
            label_HW[decoded(mask, row["size"], self.place) > 0] = value
        return label_HW

    def rows(self, coco: Coco) -> Rows:
        of_image, label_of = coco.by_image(), coco.labels()

        def row(image: dict[str, Any]) -> dict[str, Any]:
            objects = sorted(of_image[image["id"]], key=lambda entry: -entry["area"])
            return {
                "image": str(coco.folder / image["file_name"]),
                "size": [image["height"], image["width"]],
                "masks": [entry["segmentation"] for entry in objects],
                "labels": [
                    None if entry["iscrowd"] else label_of[entry["category_id"]]
                    for entry in objects
                ],
            }

        return Rows(map(row, coco.images))


def checked_size(size: int, stride: int, place: str) -> int:
    if size < 1 or size % stride:
        near = max(1, math.ceil(size / stride)) * stride
        raise ConfigError(
            f"{place}.size: {size} is no multiple of {stride}, the stride of the layer; take {near}"
        )
    return size
