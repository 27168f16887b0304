"""Objects pasted on photographs, in COCO's format, with exact boxes and masks.

Shape suffixes: H, W of an image, h, w of an object.
"""

import json

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

INKS = [(255, 40, 40), (60, 255, 60), (70, 90, 255)]


def digits(split):
    """Category -> [(pixels [h, w, 3], mask [h, w])]: real handwritten 0, 1 and 7, 20 px high."""
    found, data = {}, load_digits()
    for name, digit, ink in zip(("zero", "one", "seven"), (0, 1, 7), INKS):
        images = data.images[data.target == digit]
        images = images[:100] if split == "train" else images[100:]
        found[name] = [_inked(image, ink) for image in images]
    return found


def _inked(image, ink):
    large = Image.fromarray((image * 15).astype(np.uint8)).resize(
        (20, 20), Image.Resampling.BICUBIC
    )
    mask = np.asarray(large) > 90
    return np.broadcast_to(np.uint8(ink), (20, 20, 3)), mask


def photographs():
    """Two that come with scikit-learn."""
    return [Image.fromarray(image) for image in load_sample_images().images]


def compose(folder, objects, backgrounds, *, images, size, per_image=3, scale=(0.8, 1.4), seed=0):
    """Writes images and annotations.json into `folder`; returns the path of the annotations.

    Later objects hide earlier ones: boxes and masks are those of what is visible. Objects of which
    less than two thirds are visible are crowds.

    Args:
        objects: category -> list of (pixels [h, w, 3], mask [h, w]).
        backgrounds: PIL images, of which random squares are taken.
        per_image: most objects of an image; some images have none.
        scale: of the objects, drawn between these.
    """
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    names, content = list(objects), {"images": [], "annotations": []}
    content["categories"] = [{"id": 10 * (i + 1), "name": name} for i, name in enumerate(names)]
    for image_id in range(1, images + 1):
        canvas, layers = _background(backgrounds, size, rng), []
        for _ in range(rng.integers(0, per_image + 1)):
            category = int(rng.integers(len(names)))
            pool = objects[names[category]]
            pixels, mask = _scaled(*pool[rng.integers(len(pool))], rng.uniform(*scale))
            layers.append((10 * (category + 1), _paste(canvas, pixels, mask, rng)))
        file_name = f"{image_id:04}.png"
        Image.fromarray(canvas).save(folder / "images" / file_name)
        entry = {"id": image_id, "file_name": file_name, "width": size, "height": size}
        content["images"].append(entry)
        content["annotations"] += list(_visible(layers, image_id))
    for i, annotation in enumerate(content["annotations"]):
        annotation["id"] = i
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def _background(backgrounds, size, rng):
    photograph = backgrounds[rng.integers(len(backgrounds))]
    side = int(min(photograph.size) * rng.uniform(0.5, 1))
    left, top = (int(rng.integers(0, extent - side + 1)) for extent in photograph.size)
    square = photograph.crop((left, top, left + side, top + side)).resize((size, size))
    return np.array(square.convert("RGB"))


def _scaled(pixels, mask, factor):
    size = [round(factor * side) for side in mask.shape[::-1]]
    pixels = Image.fromarray(np.ascontiguousarray(pixels)).resize(size)
    mask = Image.fromarray(mask.astype(np.uint8) * 255).resize(size)
    return np.asarray(pixels), np.asarray(mask) > 127


def _paste(canvas, pixels, mask, rng):
    """Where in the canvas the object is, [H, W]."""
    height, width = mask.shape
    top, left = (int(rng.integers(0, canvas.shape[i] - mask.shape[i] + 1)) for i in (0, 1))
    canvas[top : top + height, left : left + width][mask] = pixels[mask]
    where = np.zeros(canvas.shape[:2], bool)
    where[top : top + height, left : left + width] = mask
    return where


def _visible(layers, image_id):
    covered = np.bool_(False)
    for category_id, where in reversed(layers):
        visible = where & ~covered
        covered = covered | where
        if visible.any():
            ys, xs = visible.nonzero()
            box = [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]
            yield {
                "image_id": image_id,
                "category_id": category_id,
                "bbox": [float(value) for value in box],
                "area": float(visible.sum()),
                "iscrowd": int(visible.sum() < where.sum() * 2 / 3),
                "segmentation": {"size": list(visible.shape), "counts": runs(visible)},
            }


def runs(mask):
    """Lengths of alternating runs of 0 and 1, column by column."""
    flat = mask.T.ravel()
    edges = (np.flatnonzero(flat[1:] != flat[:-1]) + 1).tolist()
    counts = np.diff([0, *edges, len(flat)]).tolist()
    return [0, *counts] if flat[0] else counts
