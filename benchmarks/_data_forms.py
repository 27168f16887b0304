"""How far the forms of a transform are from `on_image`, of photographs: `data_meaning.py`.

Shape suffixes: N draws, D uniforms, H, W, C of an image.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from vissl_lite import TRANSFORMS
from vissl_lite.data.decode import decode
from vissl_lite.data.picture import MARGIN, SHRINKS, open_picture
from vissl_lite.data.transform import Transform
from vissl_lite.plugins import load_entries

SIZE, SQUARE, SMALL, DRAWS = 224, 256, 48, 4
ALWAYS = ("color_jitter", "gaussian_blur", "random_horizontal_flip", "random_grayscale", "solarize")
ALWAYS += ("posterize", "random_erasing")
CONFIGS: list[dict[str, Any]] = [
    {"name": "random_resized_crop"},
    {"name": "random_resized_crop", "interpolation": "bicubic"},
    {"name": "resize"},
    *({"name": name, "p": 1.0} for name in ALWAYS),
    {"name": "random_affine"},
    {"name": "random_rotation"},
    {"name": "center_crop"},
    {"name": "random_crop"},
]


def forms(files: Sequence[bytes]) -> None:
    """Prints a line for each transform, with its defaults but p = 1."""
    load_entries()
    print(f"\nmean |difference| to on_image in 1/255, {len(files)} photographs, {DRAWS} draws each")
    print(f"{'':40}{'on_array':>10}{'on_batch':>10}")
    images = [decode(file) for file in files]
    for config in CONFIGS:
        transform = TRANSFORMS.build(config, size=SIZE)
        array, batch = np.mean([apart(transform, image) for image in images], 0)
        title = " ".join([config["name"], config.get("interpolation", "")])
        print(f"{title:40}{array:10.4f}{batch:10.4f}", flush=True)


def apart(transform: Transform, image: Image.Image) -> tuple[float, float]:
    """What resizes sees the whole photograph, all else a square: of the view, if it keeps that."""
    if not hasattr(transform, "linear"):
        side = SIZE if transform.shape == "kept" else SQUARE
        image = ImageOps.fit(image, (side, side), Image.Resampling.BILINEAR)
    pixels_HWC, p_NP = np.asarray(image), transform.parameters(uniforms(transform), *image.size)
    base = np.stack([np.asarray(transform.on_image(image, p)) for p in p_NP.tolist()]).astype(float)
    arrays = np.stack([transform.on_array(pixels_HWC, p) for p in p_NP.tolist()])
    x_NCHW = torch.from_numpy(np.stack([pixels_HWC] * DRAWS)).permute(0, 3, 1, 2).float()
    y_NCHW: Any = transform.on_batch(x_NCHW, torch.from_numpy(p_NP).float())  # pyright: ignore
    batch = y_NCHW.permute(0, 2, 3, 1).numpy()
    return np.abs(arrays - base).mean(), np.abs(batch - base).mean()


def uniforms(transform: Transform) -> np.ndarray:
    return np.random.default_rng(0).random((DRAWS, transform.draws))


def shrunk(files: Sequence[bytes]) -> None:
    """Prints the same of crops cut from JPEGs that are shrunk while they are decoded.

    The views are small, for the photographs are: what counts is the ratio to the crop's side.
    """
    print(f"crops of {SMALL} px cut from JPEGs that are shrunk while they are decoded")
    for margin in (MARGIN, MARGIN / 2):
        found = [pair for file in files for pair in _shrunk(file, margin)]
        exact, rounded = np.mean(found, 0)
        title = f"  margin {margin:g}, {len(found)} crops"
        print(f"{title:40}{exact:10.4f}; boxes in whole pixels {rounded:.4f}")


def _shrunk(file: bytes, margin: float) -> Iterator[tuple[float, float]]:
    """Of the crops that keep `margin` times the resolution that they need."""
    crop = TRANSFORMS.build({"name": "random_resized_crop"}, size=SMALL)
    picture, image = open_picture(file), decode(file)
    for box in crop.parameters(uniforms(crop), *image.size):
        needed = (box[2:] - box[:2]).min() / SMALL
        k = max(k for k in SHRINKS if k == 1 or margin * k <= needed)
        if k > 1 and picture.jpeg:
            base, pixels = np.asarray(crop.on_image(image, box)).astype(float), picture.pixels(k)
            boxes = (box / k, np.rint(box / k))
            exact, rounded = (crop.on_array(pixels, p.tolist()) - base for p in boxes)
            yield np.abs(exact).mean(), np.abs(rounded).mean()
