from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vissl_lite import EVALUATIONS, ConfigError
from vissl_lite.evaluations._coco import Coco, read_pair
from vissl_lite.evaluations._coco_masks import mask_tools
from vissl_lite.evaluations._detection_data import (
    Picture,
    Pictures,
    batches,
    check_batch,
    of_all_ranks,
    once_each,
    tell_broken,
    training_order,
)
from vissl_lite.evaluations._detection_network import (
    Architecture,
    build,
    fitting_levels,
    outline_of_trunk,
)
from vissl_lite.evaluations._detection_pyramid import BatchNormIs
from vissl_lite.evaluations._detection_scores import as_results, average_precision
from vissl_lite.evaluations._training import (
    fit,
    seeded,
    warm_steps,
    without_decay_of_norms_and_tokens,
)
from vissl_lite.io import replace_text
from vissl_lite.parallel.collectives import on_rank_zero

if TYPE_CHECKING:
    from vissl_lite.engine.bench import Bench

PLACE = "evaluations.detection"
MOMENTUM = 0.9


@EVALUATIONS.register("detection")
class Detection:
    """Object detection after fine-tuning: Faster or Mask R-CNN with FPN on the trunk, COCO's AP.

    A copy of the trunk, torchvision's heads and anchors; pixels normalised as the model's. The
    protocol is that of MoCo (He et al. 2020, arXiv 1911.05722, section 4.2) for COCO, the "1x"
    schedule of Detectron2: all layers trained, BatchNorm too, with statistics of the whole batch
    and also in the pyramid; SGD, momentum 0.9, a tenth of the rate after 2/3 and 8/9 of the steps,
    shorter sides of 640 to 800 pixels, flips. Norm layers do not decay, nor do position and class
    embeddings. The statistics of BatchNorm are running means, not recomputed at the end. Frozen
    BatchNorm and `freeze_until=res2` are Detectron2's for networks pre-trained with labels.

    A trunk whose maps all have one stride, such as `vit`, gets ViTDet's simple feature pyramid (Li
    et al. 2022, arXiv 2203.16527, section 3). The paper has AdamW with layer decay, heads, sizes
    and a schedule of its own, relative positions, and attention in windows but for four blocks;
    here it is global in all. The map of `vit` is that after its last norm; ViTDet's code leaves
    this norm out, as `layers=[block12]` does.

    Boxes without area inside their image are left out and counted; crowds are left out of training
    and ignored in testing, as COCO does. Images that cannot be read are counted, replaced by the
    next one in training and without detections in testing. Processes share out every batch.
    The same seed gives the same detector, bit for bit on a CPU.

    Metrics, in [0, 1], by pycocotools: `box_ap`, the mean over ten IoUs from 0.5 to 0.95,
    `box_ap50`, `box_ap75`; with masks `mask_ap`, `mask_ap50`, `mask_ap75`. The detections are
    left in `evaluations/detection/detections.json`, in COCO's results format.

    Args:
        images_train, images_test: folders of images.
        annotations_train, annotations_test: files in COCO's format, of the same categories.
        masks: Mask R-CNN, and AP of masks too.
        iterations: steps, 90,000 on COCO; 24,000 with 100 of warmup on VOC07+12.
        batch_size: images per step, of all processes.
        lr: peak learning rate, for a batch of 16; scale it with the batch.
        warmup: steps in which the rate rises from a thousandth.
        weight_decay: but of norms, and of position and class embeddings.
        train_sizes: shorter sides in pixels, one drawn per image.
        test_size, longest: shorter side in testing, and the most that a longer side may have.
        flip: mirror half of the images.
        batch_norm: "synchronised" or "frozen": statistics and parameters stay as they are, and
            the pyramid goes without. `vit` has none, and LayerNorm in its pyramid.
        freeze_until: trunk layer up to which all stays as it is.
        layers: four maps of the trunk with doubling strides, default its coarsest four; of a trunk
            with one stride one map, default its last.
        channels: of the pyramid and the mask head.
        hidden: units of the box head.
        proposals: regions per image that the box head is trained on. The defaults of these three
            are Detectron2's; small images on a CPU do with a tenth.
        test_batch_size: images per process.
        seed: of new weights, order, flips, sizes and samples.

    Raises:
        ConfigError: pycocotools is missing, the annotations or images are wrong, the trunk has
            maps neither at four strides nor all at one, or takes images of one size only, or the
            batch is not a multiple of the processes.
        NonFiniteLoss: the learning rate is too high.
    """

    brings_images = True

    def __init__(
        self,
        images_train: str,
        annotations_train: str,
        images_test: str,
        annotations_test: str,
        masks: bool = True,
        iterations: int = 90_000,
        batch_size: int = 16,
        lr: float = 0.02,
        warmup: int = 1000,
        weight_decay: float = 1e-4,
        train_sizes: tuple[int, ...] = (640, 672, 704, 736, 768, 800),
        test_size: int = 800,
        longest: int = 1333,
        flip: bool = True,
        batch_norm: BatchNormIs = "synchronised",
        freeze_until: str | None = None,
        layers: tuple[str, ...] | None = None,
        channels: int = 256,
        hidden: int = 1024,
        proposals: int = 512,
        test_batch_size: int = 4,
        seed: int = 0,
    ):
        _check_positive(
            iterations=iterations, batch_size=batch_size, test_batch_size=test_batch_size
        )
        _check_positive(
            test_size=test_size, longest=longest, train_sizes=min(train_sizes, default=0)
        )
        _check_positive(channels=channels, hidden=hidden, proposals=proposals)
        mask_tools(PLACE)
        self.files = (images_train, images_test), (annotations_train, annotations_test)
        self.masks, self.iterations, self.batch_size = masks, iterations, batch_size
        self.lr, self.warmup, self.weight_decay = lr, warmup, weight_decay
        self.train_sizes, self.test_size, self.flip = train_sizes, test_size, flip
        self.architecture = Architecture(
            masks, layers, channels, hidden, proposals, batch_norm, freeze_until, longest
        )
        self.test_batch_size, self.seed = test_batch_size, seed
        read_pair(
            *self.files, masks=masks, place=PLACE
        )  # a mistake is said now, not after training

    def check(self, bench: Bench) -> None:
        check_batch(self.batch_size, PLACE)
        fitting_levels(outline_of_trunk(bench), self.architecture, PLACE)

    def evaluate(self, bench: Bench) -> dict[str, float]:
        self.check(bench)
        train, test = self._annotations(bench)
        with seeded(self.seed, bench.device):
            network = build(bench, len(train.categories), self.architecture, PLACE)
            self._train(network, train, bench)
            rows = self._detect(network, test, bench)
        folder = bench.files("detection")
        if folder is not None:
            replace_text(folder / "detections.json", json.dumps(rows) + "\n")
        return on_rank_zero(lambda: average_precision(test, rows, self.masks))

    def _annotations(self, bench: Bench) -> tuple[Coco, Coco]:
        pair = read_pair(*self.files, masks=self.masks, place=PLACE)
        for split, coco in zip(("train", "test"), pair):
            if coco.thin:
                bench.note(
                    f"detection: {coco.thin} objects of annotations_{split} left out: no area"
                )
        return pair

    def _train(self, network: nn.Module, coco: Coco, bench: Bench) -> None:
        pictures = self._pictures(coco, training=True)
        order = partial(training_order, len(pictures), self.batch_size, self.iterations, self.seed)
        groups = without_decay_of_norms_and_tokens(network, self.weight_decay)
        rates = partial(warm_steps, peak=self.lr, iterations=self.iterations, warmup=self.warmup)
        broken: set[str] = set()
        network.train()
        network.transform.min_size = self.train_sizes  # pyright: ignore[reportArgumentType]
        fit(
            "detection",
            network,
            partial(self._loss, network, bench.device, broken),
            lambda start: batches(pictures, order(start), bench.workers),
            torch.optim.SGD(groups, self.lr, MOMENTUM),
            rates,
            {**vars(self), "content": pictures.rows.digest()},
            bench,
        )
        tell_broken(bench, broken, "detection", "train")

    def _loss(
        self, network: nn.Module, device: torch.device, broken: set[str], batch: list[Picture]
    ) -> Tensor:
        broken.update(name for picture in batch for name in picture.broken)
        targets = [{key: t.to(device) for key, t in picture.target.items()} for picture in batch]
        losses: dict[str, Tensor] = network([_pixels(p, device) for p in batch], targets)
        return torch.stack(list(losses.values())).sum()

    @torch.no_grad()
    def _detect(self, network: nn.Module, coco: Coco, bench: Bench) -> list[dict[str, Any]]:
        pictures, rows = self._pictures(coco, training=False), []
        categories = [category["id"] for category in coco.categories]
        broken: set[str] = set()
        network.eval()
        network.transform.min_size = (self.test_size,)  # pyright: ignore[reportArgumentType]
        order = once_each(len(pictures), self.test_batch_size)
        for batch in batches(pictures, order, bench.workers):
            bench.stop_point()
            broken.update(name for picture in batch for name in picture.broken)
            whole = [picture for picture in batch if not picture.broken]
            found = network([_pixels(p, bench.device) for p in whole]) if whole else []
            for picture, detections in zip(whole, found):
                rows += as_results(detections, picture.image_id, categories, PLACE)
        tell_broken(bench, broken, "detection", "test")
        return of_all_ranks(rows)

    def _pictures(self, coco: Coco, training: bool) -> Pictures:
        return Pictures(
            coco,
            training=training,
            masks=self.masks and training,
            flip=self.flip,
            seed=self.seed,
            place=PLACE,
        )


def _pixels(picture: Picture, device: torch.device) -> Tensor:
    """float [C, H, W] in [0, 1]."""
    return picture.image_CHW.to(device).float() / 255


def _check_positive(**settings: int) -> None:
    for name, value in settings.items():
        if value < 1:
            raise ConfigError(f"{PLACE}.{name}: {value}; needs 1 or more")
