"""Shape suffixes: B images, C channels, K classes, H, W rows and columns of an image."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vissl_lite import EVALUATIONS, ConfigError
from vissl_lite.evaluations._coco import read_pair
from vissl_lite.evaluations._coco_masks import mask_tools
from vissl_lite.evaluations._detection_data import (
    Rows,
    batches,
    check_batch,
    once_each,
    tell_broken,
    training_order,
)
from vissl_lite.evaluations._detection_network import copy_of_trunk, map_strides, outline_of_trunk
from vissl_lite.evaluations._segmentation_data import (
    IGNORED,
    Background,
    LabelMaps,
    Painted,
    Scene,
    Scenes,
    checked_size,
)
from vissl_lite.evaluations._segmentation_scores import confusion, scores
from vissl_lite.evaluations._training import fit, seeded, warm_poly
from vissl_lite.io import replace_text
from vissl_lite.layers.norm import BatchNorm2d
from vissl_lite.parallel.collectives import all_reduce_sum, world_size
from vissl_lite.schema import at_least

if TYPE_CHECKING:
    from vissl_lite.engine.bench import Bench

PLACE = "evaluations.segmentation"


@EVALUATIONS.register("segmentation")
class Segmentation:
    """Semantic segmentation by a linear head on a map of the frozen trunk: mean IoU.

    BatchNorm and a 1x1 convolution give logits per cell, which are upsampled bilinearly to the
    image: the linear protocol of DINOv2 (Oquab et al. 2023, arXiv 2304.07193, section 7.4). As
    there AdamW, 40,000 steps of 16 crops of 512 pixels, scaled by 0.5 to 2 and flipped; its colour
    distortions and its sliding windows in testing are left out: an image is seen whole, its shorter
    side as long as a crop. Processes share out every batch.

    Classes are 0, 1, ... of the label maps; pixels of 255 do not count. With COCO's format 0 is the
    background, the categories follow in the order of their ids, smaller objects lie on larger ones,
    and crowds do not count. `background=ignore` leaves class 0 out, as ADE20K's 150 classes do; VOC
    counts it as one of 21.

    Metrics, in [0, 1], over the pixels of all test images in their original size: `miou`, the mean
    over the classes that occur, and `pixel_accuracy`. The IoU of every class is left in
    `evaluations/segmentation/iou.json`.

    Args:
        images_train, images_test: folders of images.
        labels_train, labels_test: folders of PNG label maps with the names of their images, or
            files in COCO's format.
        classes: number of classes of the label maps, without an ignored background.
        background: what 0 is, "class" or "ignore".
        layer: a map of the trunk; default: its last one.
        size: side of the crops in pixels, a multiple of the layer's stride.
        scale: of the shorter side before cropping, relative to `size`.
        flip: mirror half of the crops.
        batch_norm: before the convolution.
        iterations, batch_size, lr, weight_decay, warmup: of AdamW; the rate rises in `warmup` steps
            and falls linearly to 0.
        seed: of the head, the order and the crops.

    Raises:
        ConfigError: images, label maps or annotations are wrong, the layer is no map, the size is
            no multiple of its stride, or the batch is not a multiple of the processes.
        NonFiniteLoss: the learning rate is too high.
    """

    brings_images = True

    def __init__(
        self,
        images_train: str,
        labels_train: str,
        images_test: str,
        labels_test: str,
        classes: int | None = None,
        background: Background = "class",
        layer: str | None = None,
        size: int = 512,
        scale: tuple[float, float] = (0.5, 2.0),
        flip: bool = True,
        batch_norm: bool = True,
        iterations: Annotated[int, at_least(1)] = 40_000,
        batch_size: Annotated[int, at_least(1)] = 16,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup: int = 1500,
        seed: int = 0,
    ):
        self.images, self.labels = (images_train, images_test), (labels_train, labels_test)
        self.classes, self.layer = classes, layer
        self.background: Background = background
        self.size, self.scale, self.flip, self.batch_norm = size, scale, flip, batch_norm
        self.iterations, self.batch_size = iterations, batch_size
        self.lr, self.weight_decay, self.warmup, self.seed = lr, weight_decay, warmup, seed
        self._read()  # a mistake is said now, not after training

    def check(self, bench: Bench) -> None:
        check_batch(self.batch_size, PLACE)
        self._map(outline_of_trunk(bench))

    def evaluate(self, bench: Bench) -> dict[str, float]:
        self.check(bench)
        trunk: Any = copy_of_trunk(bench).requires_grad_(False).eval()
        layer, stride = self._map(trunk)
        data = self._read()
        with seeded(self.seed, bench.device):
            head = linear_head(trunk.widths[layer], len(data.names), self.batch_norm)
        head.to(bench.device)
        features = partial(self._features, trunk, layer, bench)
        self._train(head, features, self._scenes(data, 0, stride), bench)
        confusion_KK = self._test(head, features, self._scenes(data, 1, stride), bench)
        metrics, ious = scores(all_reduce_sum(confusion_KK))
        self._leave(bench.files("segmentation"), data.names, ious)
        return metrics

    def _read(self) -> Data:
        from_coco = {Path(path).suffix.lower() == ".json" for path in self.labels}
        if len(from_coco) > 1:
            raise ConfigError(f"{PLACE}: labels_train and labels_test are not of the same kind")
        return self._read_coco() if from_coco.pop() else self._read_maps()

    def _read_coco(self) -> Data:
        mask_tools(PLACE)
        pair = read_pair(self.images, self.labels, masks=True, place=PLACE, key="labels")
        painted = Painted(self.background, PLACE)
        names = [category["name"] for category in pair[0].categories]
        names = ["background", *names] if self.background == "class" else names
        if len(names) > IGNORED:
            raise ConfigError(
                f"{PLACE}.labels_train: {len(names)} classes; no more than {IGNORED} can be told"
                " apart"
            )
        return Data(names, [(painted.rows(coco), painted) for coco in pair])

    def _read_maps(self) -> Data:
        if self.classes is None or not 1 <= self.classes <= IGNORED:
            raise ConfigError(
                f"{PLACE}.classes: {self.classes}; label maps need a number from 1 to {IGNORED}"
            )
        splits = []
        for images, labels, split in zip(self.images, self.labels, ("train", "test")):
            maps = LabelMaps(self.classes, self.background, f"{PLACE}.labels_{split}")
            splits.append((maps.rows(images, labels, f"{PLACE}.images_{split}"), maps))
        return Data([str(k) for k in range(self.classes)], splits)

    def _map(self, trunk: nn.Module) -> tuple[str, int]:
        """The layer and its stride."""
        stride_of = map_strides(trunk, PLACE)
        layer = self.layer or next(reversed(stride_of), "")
        if layer not in stride_of:
            known = ", ".join(stride_of) or "it has none"
            raise ConfigError(f"{PLACE}.layer: {layer!r} is no map of the trunk; {known}")
        checked_size(self.size, stride_of[layer], PLACE)
        return layer, stride_of[layer]

    def _features(self, trunk: nn.Module, layer: str, bench: Bench, x_BHWC: Tensor) -> Tensor:
        with torch.no_grad(), bench.numerics.autocast(bench.device):
            x_BCHW = bench.model.normalise(x_BHWC.to(bench.device))
            return trunk(x_BCHW, (layer,))[layer].float()

    def _scenes(self, data: Data, split: int, stride: int) -> Scenes:
        rows, labels = data.splits[split]
        scale = self.scale if split == 0 else None
        return Scenes(
            rows,
            labels,
            size=self.size,
            stride=stride,
            scale=scale,
            flip=self.flip,
            seed=self.seed,
        )

    def _train(
        self,
        head: nn.Module,
        features: Callable[[Tensor], Tensor],
        scenes: Scenes,
        bench: Bench,
    ) -> None:
        broken: set[str] = set()
        head.train()
        order = partial(training_order, len(scenes), self.batch_size, self.iterations, self.seed)

        def read(start: int) -> Iterator[list[Scene]]:
            return _readable(batches(scenes, order(start), bench.workers), broken, self.size)

        fit(
            "segmentation",
            head,
            lambda batch: loss_of(head, features, batch),
            read,
            torch.optim.AdamW(head.parameters(), self.lr, weight_decay=self.weight_decay),
            partial(warm_poly, peak=self.lr, iterations=self.iterations, warmup=self.warmup),
            {**vars(self), "content": scenes.rows.digest()},
            bench,
        )
        tell_broken(bench, broken, "segmentation", "train")

    @torch.no_grad()
    def _test(
        self,
        head: nn.Module,
        features: Callable[[Tensor], Tensor],
        scenes: Scenes,
        bench: Bench,
    ) -> Tensor:
        classes, broken = head[-1].out_channels, set()  # pyright: ignore
        counts_KK = torch.zeros(classes, classes, dtype=torch.int64, device=bench.device)
        head.eval()
        for batch in batches(scenes, once_each(len(scenes), 1), bench.workers):
            bench.stop_point()
            broken.update(scene.name for scene in batch if scene.image_HWC is None)
            for scene in batch:
                if scene.image_HWC is not None:
                    logits_BKHW = head(features(scene.image_HWC[None]))
                    found_BHW = upsampled(logits_BKHW, scene.label_HW.shape).argmax(1)
                    label_HW = scene.label_HW.to(bench.device)
                    counts_KK += confusion(label_HW.flatten(), found_BHW.flatten(), classes)
        tell_broken(bench, broken, "segmentation", "test")
        return counts_KK

    def _leave(self, folder: Path | None, names: list[str], ious: list[float]) -> None:
        if folder is not None:
            known = {name: None if math.isnan(iou) else iou for name, iou in zip(names, ious)}
            replace_text(folder / "iou.json", json.dumps(known, indent=2) + "\n")


@dataclass
class Data:
    """Names of the classes; for both splits the images and what reads their classes."""

    names: list[str]
    splits: list[tuple[Rows, Any]]


def linear_head(width: int, classes: int, batch_norm: bool) -> nn.Sequential:
    """BatchNorm over all processes, if asked for, and a 1x1 convolution."""
    convolution = nn.Conv2d(width, classes, 1)
    nn.init.normal_(convolution.weight, std=0.01)  # of mmsegmentation, which DINOv2 trains with
    nn.init.zeros_(convolution.bias)  # pyright: ignore[reportArgumentType]
    if not batch_norm:
        return nn.Sequential(convolution)
    norm = BatchNorm2d(width)
    norm.sync = world_size() > 1
    return nn.Sequential(norm, convolution)


def upsampled(logits_BKHW: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(logits_BKHW, tuple(size), mode="bilinear", align_corners=False)


def loss_of(head: nn.Module, features: Callable[[Tensor], Tensor], batch: list[Scene]) -> Tensor:
    """Mean cross-entropy of the pixels that have a class; 0 where none has."""
    x_BHWC = torch.stack([scene.image_HWC for scene in batch if scene.image_HWC is not None])
    logits_BKHW = head(features(x_BHWC))
    label_BHW = torch.stack([scene.label_HW for scene in batch]).to(logits_BKHW.device)
    logits_BKHW = upsampled(logits_BKHW, label_BHW.shape[1:])
    total = F.cross_entropy(logits_BKHW, label_BHW, ignore_index=IGNORED, reduction="sum")
    return total / (label_BHW != IGNORED).sum().clamp_min(1)


def _readable(batches: Iterator[list[Scene]], broken: set[str], size: int) -> Iterator[list[Scene]]:
    """Black without a class in place of what cannot be read: every rank takes as many steps."""
    for batch in batches:
        broken.update(scene.name for scene in batch if scene.image_HWC is None)
        for scene in batch:
            if scene.image_HWC is None:
                scene.image_HWC = torch.zeros(size, size, 3, dtype=torch.uint8)
                scene.label_HW = torch.full((size, size), IGNORED)
        yield batch
