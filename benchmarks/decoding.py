"""Decoding, evaluation transforms and shrinking for shards, against Pillow.

    python benchmarks/decoding.py [--rounds 7] [--only decode,evaluation,filters]

decode       the 250 photographs, 2,000 files of CIFAR-10, one JPEG of 12 megapixels (photographs
             side by side, 4:2:0), in full and by DCT scaling: `open_picture(...).pixels(shrink)`
             against Pillow in full, which is what the reference does
evaluation   photographs to views of 224: decode, resize to 256, center crop; both back ends
filters      the mean difference, in 1/255, of SwAV's crops cut from shrunk photographs to those of
             the originals: the table of docs/shards.md

CPU time of one thread, both in turn in each round, the one before the other and then the other way
round; the factor is the median of the rounds. Archives: `$VISSL_LITE_DATA`.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import io
import statistics
import tarfile
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from _data_cells import about, data_folder, photographs
from PIL import Image

from vissl_lite.data.batch import Sample
from vissl_lite.data.dataset import ViewDataset
from vissl_lite.data.decode import decode
from vissl_lite.data.fast import FastViews
from vissl_lite.data.picture import SHRINKS, open_picture
from vissl_lite.data.sampler import Order, Request
from vissl_lite.data.views import Views
from vissl_lite.plugins import load_entries
from vissl_lite.shards.convert import shrink
from vissl_lite.transforms.random_resized_crop import crop_boxes

LARGE = (4000, 3000)  # 12 megapixels
CROPS = {224: (0.14, 1.0), 96: (0.05, 0.14)}  # side: share of the area, as of SwAV
DRAWS = 4  # crops of each photograph


# ---------------------------------------------------------------- what is measured


def cifar_files(count: int) -> list[bytes]:
    """Encoded, of the training images."""
    with tarfile.open(data_folder() / "cifar10-images.tar.xz") as tar:
        names = (member for member in tar if member.isfile() and "train/" in member.name)
        return [tar.extractfile(member).read() for member, _ in zip(names, range(count))]


def large_jpeg(images: Sequence[bytes]) -> bytes:
    """Photographs of 500 x 500 pixels, side by side."""
    canvas, side = Image.new("RGB", LARGE), 500
    for place in range(LARGE[0] * LARGE[1] // side**2):
        top, left = divmod(place * side, LARGE[0])
        canvas.paste(decode(images[place]).resize((side, side)), (left, top * side))
    file = io.BytesIO()
    canvas.save(file, "JPEG", quality=92, subsampling=2)
    return file.getvalue()


def by_pillow(images: Sequence[bytes]) -> list[np.ndarray]:
    return [np.asarray(decode(image)) for image in images]


def ours(images: Sequence[bytes], shrink: int = 1) -> list[np.ndarray]:
    return [open_picture(image).pixels(shrink) for image in images]


class Encoded:
    """A source of encoded images."""

    num_classes = classes = None

    def __init__(self, images: Sequence[bytes]):
        self.held = images

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.held[index])


def evaluation(images: Sequence[bytes]) -> tuple[Callable, Callable]:
    """The reference and the fast back end, from all images to one batch."""
    steps = [{"name": "resize"}, {"name": "center_crop"}]
    views = Views.build([{"count": 1, "size": 224, "transforms": steps}])
    request, order = Request(0, 0, np.arange(len(images))), Order([len(images)])
    sets = [ViewDataset(Encoded(images), v, order, 0) for v in (views, FastViews(views, False))]
    return partial(sets[0].__getitem__, request), partial(sets[1].__getitem__, request)


# ---------------------------------------------------------------- time


def compare(title: str, count: int, base: Callable, other: Callable, rounds: int) -> None:
    """Prints ms per image of both, and the factor."""
    found: dict[Callable, list[float]] = {base: [], other: []}
    for round_ in range(rounds + 1):
        for call in (base, other) if round_ % 2 else (other, base):
            start = time.process_time()
            call()
            if round_:
                found[call].append(1e3 * (time.process_time() - start) / count)
    theirs, mine = map(statistics.median, found.values())
    factor = statistics.median(a / b for a, b in zip(*found.values()))
    print(f"{title:38}{theirs:10.3f}{mine:10.3f}{factor:9.2f}x", flush=True)


def decoding(images: Sequence[bytes], rounds: int) -> None:
    large, small = [large_jpeg(images)], cifar_files(2000)
    for title, files in {"photographs": images, "CIFAR-10": small, "12 megapixels": large}.items():
        call = partial(ours, files)
        compare(title, len(files), partial(by_pillow, files), call, rounds)
        equal = sum(map(np.array_equal, by_pillow(files), call()))
        print(f"  {equal} of {len(files)} with equal pixels")
    for k in SHRINKS[1:]:
        title = f"12 megapixels, shrunk by {k}"
        compare(title, 1, partial(by_pillow, large), partial(ours, large, k), rounds)


# ---------------------------------------------------------------- filters


def shrinkers() -> dict[str, Callable[[Image.Image, int], Image.Image]]:
    """Name -> from an image and its new short side to the smaller image."""
    names = ("LANCZOS", "BICUBIC", "BILINEAR", "BOX")
    plain = {n.lower(): partial(resized, kernel=Image.Resampling[n]) for n in names}
    samplings = {"JPEG 90 4:4:4": "4:4:4", "JPEG 90 4:2:0": "4:2:0"}
    return plain | {n: partial(recoded, subsampling=s) for n, s in samplings.items()}


def resized(image: Image.Image, short: int, kernel: Image.Resampling) -> Image.Image:
    return image.resize(shrink(image, short).size, kernel)


def recoded(image: Image.Image, short: int, subsampling: str) -> Image.Image:
    """As the builder shrinks, then as JPEG."""
    file = io.BytesIO()
    shrink(image, short).save(file, "JPEG", quality=90, subsampling=subsampling)
    return decode(file.getvalue())


def crops(image: Image.Image, boxes: np.ndarray, size: int, factor: float) -> np.ndarray:
    """Boxes of the original, each cut and resized with antialiasing."""
    limits = np.tile(image.size, 2)
    return np.stack(
        [
            np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, tuple(box)))
            for box in np.minimum(boxes * factor, limits)
        ]
    ).astype(float)


def filters(images: Sequence[bytes]) -> None:
    print(f"\n{'mean difference in 1/255':32}" + "".join(f"{name:>15}" for name in shrinkers()))
    for short in (400, 256):
        chosen = [x for x in map(decode, images) if min(x.size) > short]
        for size, scale in CROPS.items():
            title = f"short side {short}, crops of {size} ({len(chosen)})"
            means = apart(chosen, short, size, scale)
            print(f"{title:32}" + "".join(f"{mean:15.2f}" for mean in means), flush=True)


def apart(
    images: Sequence[Image.Image], short: int, size: int, scale: tuple[float, float]
) -> np.ndarray:
    """Mean |difference| over the crops of all images, for each way to shrink them."""
    rng, found = np.random.default_rng(0), []
    for image in images:
        boxes = crop_boxes(*image.size, scale, (3 / 4, 4 / 3), rng.random((DRAWS, 22)))
        whole, factor = crops(image, boxes, size, 1.0), short / min(image.size)
        small = [crops(way(image, short), boxes, size, factor) for way in shrinkers().values()]
        found.append([np.abs(s - whole).mean() for s in small])
    return np.mean(found, 0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="decode,evaluation,filters")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load_entries()
    images = photographs()
    print(f"{about()}\n{'CPU ms per image':38}{'Pillow':>10}{'ours':>10}{'factor':>10}")
    if "decode" in options.only:
        decoding(images, options.rounds)
    if "evaluation" in options.only:
        pair = evaluation(images)
        compare("evaluation, photographs to 224", len(images), *pair, options.rounds)
    if "filters" in options.only:
        filters(images)


if __name__ == "__main__":
    main()
