"""Whether detection and segmentation learn, and whether the AP is right.

    python benchmarks/detection.py [--trunk vit] [--iterations 300] [--images 200]
    python benchmarks/detection.py --only segmentation [--iterations 200]

Cut-outs of CIFAR-10's airplanes, automobiles, horses and ships, scaled to 19 to 32 pixels, pasted
on ImageNet photographs of 64 pixels, up to three of them; the objects of the test images come from
CIFAR's test split. Mask R-CNN on random weights, a ResNet-18 of a quarter of the width with CIFAR's
stem or a ViT-Ti/16, before (one step) and after training; then the AP of pycocotools and that of
the definition in float64 (tests/evaluations/naive_ap.py) on the same detections, and their largest
difference.

The linear head of segmentation on the last map but one of the same trunk, frozen at its random
weights, before (one step) and after training: mean IoU of the background and the four classes.

Archives: `$VISSL_LITE_DATA`.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import io
import json
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _data_cells import about
from PIL import Image

from vissl_lite import TRUNKS
from vissl_lite.config import IMAGENET_MEAN, IMAGENET_STD, Labelled
from vissl_lite.engine.bench import Bench
from vissl_lite.engine.numerics import Numerics
from vissl_lite.evaluations._coco import read
from vissl_lite.evaluations.detection import Detection
from vissl_lite.evaluations.segmentation import Segmentation
from vissl_lite.model import SSLModel
from vissl_lite.plugins import load_entries

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

DATA = Path(os.environ.get("VISSL_LITE_DATA", ROOT.parent / "shared" / "data"))
CLASSES, SIZE, PER_CLASS = ("airplane", "automobile", "horse", "ship"), 64, 200
TRUNK = {
    "resnet": {"depth": 18, "stem": "cifar", "width_multiplier": 0.25},
    "vit": {"size": "tiny", "patch_size": 16, "image_size": SIZE},
}


def objects(split: str) -> dict[str, list]:
    """Class -> images of 32 pixels with the ellipse that is cut out of them."""
    ys, xs = np.mgrid[:32, :32] - 15.5
    ellipse = (xs / 16) ** 2 + (ys / 13) ** 2 <= 1
    found: dict[str, list] = {name: [] for name in CLASSES}
    with tarfile.open(DATA / "cifar10-images.tar.xz") as tar:
        for member in tar:
            parts = Path(member.name).parts[-3:]
            if len(parts) < 3 or not member.isfile():
                continue
            pool = found.get(parts[1], []) if parts[0] == split else []
            if pool is found.get(parts[1]) and len(pool) < PER_CLASS:
                pixels = Image.open(io.BytesIO(tar.extractfile(member).read()))
                pool.append((np.asarray(pixels.convert("RGB")), ellipse))
            if all(len(images) == PER_CLASS for images in found.values()):
                break
    return found


def photographs() -> list[Image.Image]:
    with tarfile.open(DATA / "imagenet-samples-250.tar") as tar:
        members = [member for member in tar if member.isfile()][:80]
        opened = [Image.open(io.BytesIO(tar.extractfile(m).read())) for m in members]
        return [image.convert("RGB").resize((256, 256)) for image in opened]


def model(trunk: str) -> SSLModel:
    load_entries()
    torch.manual_seed(0)
    return SSLModel(
        TRUNKS.build({"name": trunk, **TRUNK[trunk]}), mean=IMAGENET_MEAN, std=IMAGENET_STD
    )


def files(folder: Path, annotations: str) -> dict[str, str]:
    """What an evaluation calls the images and the annotations of both splits."""
    return {
        f"{what}_{split}": str(folder / split / name)
        for split in ("train", "test")
        for what, name in {"images": "images", annotations: "annotations.json"}.items()
    }


def detected(folder: Path, run: Path, trunk: str, iterations: int) -> dict[str, float]:
    small = {"train_sizes": (SIZE,), "test_size": SIZE, "longest": SIZE, "proposals": 64}
    small |= {"channels": 64, "hidden": 128, "batch_size": 4, "lr": 0.03}
    warmup = min(50, iterations // 10)
    given = files(folder, "annotations")
    entry = Detection(**given, **small, iterations=iterations, warmup=warmup)
    return evaluated(entry, run, trunk)


def segmented(folder: Path, run: Path, trunk: str, iterations: int) -> dict[str, float]:
    layer = {"resnet": "res4", "vit": "block12"}[trunk]
    entry = Segmentation(
        **files(folder, "labels"),
        background="class",
        layer=layer,
        size=SIZE,
        scale=(0.9, 1.2),
        iterations=iterations,
        warmup=iterations // 10,
        lr=0.01,
    )
    return evaluated(entry, run, trunk)


def evaluated(entry: Any, run: Path, trunk: str) -> dict[str, float]:
    numerics = Numerics("fp32", "contiguous", "")
    device = torch.device("cpu")
    bench = Bench(
        model(trunk), Labelled(), {}, device=device, numerics=numerics, folder=run, note=print
    )
    return entry.evaluate(bench)


def detection(folder: Path, trunk: str, iterations: int) -> None:
    from evaluations.naive_ap import naive_scores

    before = detected(folder, folder / "before", trunk, 1)
    start = time.perf_counter()
    after = detected(folder, folder / "after", trunk, iterations)
    print(f"{iterations} iterations: {time.perf_counter() - start:.0f} s")
    test = folder / "test"
    truth = read(str(test / "images"), str(test / "annotations.json"), True, "here", "here")
    left = folder / "after" / "evaluations" / "detection" / "detections.json"
    naive = naive_scores(truth, json.loads(left.read_text()), masks=True)
    print(f"{'':12}{'before':>9}{'after':>9}{'by definition':>15}")
    for key, value in after.items():
        print(f"{key:12}{before[key]:9.4f}{value:9.4f}{naive[key]:15.4f}")
    print(f"largest difference {max(abs(after[key] - naive[key]) for key in after):.1e}")


def segmentation(folder: Path, trunk: str, iterations: int) -> None:
    before = segmented(folder, folder / "before", trunk, 1)
    start = time.perf_counter()
    after = segmented(folder, folder / "after", trunk, iterations)
    print(f"{iterations} iterations: {time.perf_counter() - start:.0f} s")
    print(f"{'':16}{'before':>9}{'after':>9}")
    for key, value in after.items():
        print(f"{key:16}{before[key]:9.4f}{value:9.4f}")


def main() -> None:
    from evaluations.composed import compose

    parser = argparse.ArgumentParser()
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--trunk", choices=tuple(TRUNK), default="resnet")
    parser.add_argument("--only", choices=("detection", "segmentation"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(about())
    with tempfile.TemporaryDirectory() as name:
        folder, backgrounds = Path(name), photographs()
        for seed, (split, images) in enumerate({"train": given.images, "test": 40}.items()):
            scenes = {"images": images, "size": SIZE, "scale": (0.6, 1.0), "seed": seed}
            compose(folder / split, objects(split), backgrounds, **scenes)
        for measure in (detection, segmentation):
            if given.only in (None, measure.__name__):
                measure(folder, given.trunk, given.iterations)


if __name__ == "__main__":
    main()
