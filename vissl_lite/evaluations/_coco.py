"""Annotations in COCO's format: read, and every entry checked before anything is trained.

Shape suffixes: H, W of an image. Boxes are xywh in pixels: left, top, width, height.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from PIL import Image

from vissl_lite.errors import ConfigError
from vissl_lite.evaluations._coco_masks import check_mask, is_number, short
from vissl_lite.parallel.collectives import on_rank_zero

MIN_SIDE = 0.1  # pixels; boxes thinner than this, inside their image, are left out
NAMED = 3  # images that a message names


@dataclass
class Coco:
    """One annotation file, and the folder of its images.

    Attributes:
        images: dicts with "id", "file_name", "width", "height".
        objects: dicts with "id" (from 1), "image_id", "category_id", "bbox", "area", "iscrowd", and
            "segmentation" where masks were asked for.
        categories: dicts with "id" and "name", ordered by id.
        thin: objects left out, whose boxes have no area inside their image.
    """

    folder: Path
    images: list[dict[str, Any]]
    objects: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    thin: int

    def labels(self) -> dict[int, int]:
        """Category id -> 1, 2, ..., K."""
        return {category["id"]: k for k, category in enumerate(self.categories, 1)}

    def by_image(self) -> dict[int, list[dict[str, Any]]]:
        """Image id -> its objects, maybe none."""
        found: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in self.images}
        for entry in self.objects:
            found[entry["image_id"]].append(entry)
        return found


def read_pair(
    images: tuple[str, str],
    annotations: tuple[str, str],
    masks: bool,
    place: str,
    key: str = "annotations",
) -> tuple[Coco, Coco]:
    """What is trained on and what is tested on, of the same categories; ranks call it together.

    Args:
        images, annotations: folders and files of both.
        masks: whether every object needs a mask.
        place, key: in the config, such as "evaluations.detection" and "annotations".

    Raises:
        ConfigError: as `read`, or the categories differ.
    """
    train, test = (
        read(folder, file, masks, f"{place}.{key}_{split}", f"{place}.images_{split}")
        for folder, file, split in zip(images, annotations, ("train", "test"))
    )
    if train.categories != test.categories:
        raise ConfigError(
            f"{place}.{key}_test: its categories are not those of {key}_train;"
            " both need the same ids and names"
        )
    return train, test


def read(folder: str, file: str, masks: bool, where: str, where_images: str) -> Coco:
    """All of one annotation file.

    Missing "iscrowd" is 0, missing "area" that of the box. Images without objects are kept.

    Raises:
        ConfigError: the first entry that is wrong, or images that are missing or of another size.
    """
    content = _content(file, where)
    images = _images(content["images"], where)
    categories = _categories(content["categories"], where)
    found = Coco(Path(folder).expanduser(), list(images.values()), [], categories, 0)
    known = {category["id"] for category in categories}
    for i, entry in enumerate(content["annotations"]):
        checked = _object(entry, f"{where}: annotations[{i}]", images, known, masks)
        if _is_thin(checked, images[checked["image_id"]]):
            found.thin += 1
        else:
            found.objects.append({"id": len(found.objects) + 1, **checked})
    if all(entry["iscrowd"] for entry in found.objects):
        raise ConfigError(f"{where}: {file} has no object with a box that is no crowd")
    on_rank_zero(lambda: _check_files(found, where_images))
    return found


# ---------------------------------------------------------------- entries


def _content(file: str, where: str) -> dict[str, list]:
    try:
        content = json.loads(Path(file).expanduser().read_bytes())
    except OSError as error:
        raise ConfigError(f"{where}: {file}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{where}: {file} is no JSON: {error}") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ConfigError(
                f"{where}: {file} has no list {key!r}; give a file in COCO's format for objects"
            )
    return content


def _images(entries: list, where: str) -> dict[int, dict[str, Any]]:
    kinds = {"id": _is_id, "file_name": _is_inside, "width": _is_size, "height": _is_size}
    found: dict[int, dict[str, Any]] = {}
    for i, entry in enumerate(entries):
        image = {key: _value(entry, key, f"{where}: images[{i}]", kinds[key]) for key in kinds}
        if image["id"] in found:
            raise ConfigError(f"{where}: images[{i}]: id {image['id']} is there twice")
        found[image["id"]] = image
    return found


def _categories(entries: list, where: str) -> list[dict[str, Any]]:
    found = [
        {
            "id": _value(entry, "id", f"{where}: categories[{i}]", _is_id),
            "name": _value(entry, "name", f"{where}: categories[{i}]", _is_name),
        }
        for i, entry in enumerate(entries)
    ]
    if len({category["id"] for category in found}) < len(found):
        raise ConfigError(f"{where}: categories: an id is there twice")
    return sorted(found, key=lambda category: category["id"])


def _object(
    entry: Any, at: str, images: dict[int, dict[str, Any]], categories: set[int], masks: bool
) -> dict[str, Any]:
    image_id = _value(entry, "image_id", at, _is_id)
    category_id = _value(entry, "category_id", at, _is_id)
    box = [float(value) for value in _value(entry, "bbox", at, _is_box)]
    if image_id not in images:
        raise ConfigError(f"{at}: image_id {image_id} is not among the images")
    if category_id not in categories:
        raise ConfigError(f"{at}: category_id {category_id} is not among the categories")
    area = _value({"area": box[2] * box[3], **entry}, "area", at, is_number)
    crowd = _value({"iscrowd": 0, **entry}, "iscrowd", at, lambda value: value in (0, 1))
    found = {"image_id": image_id, "category_id": category_id, "bbox": box}
    found |= {"area": float(area), "iscrowd": int(crowd)}
    if masks:
        image = images[image_id]
        found["segmentation"] = entry.get("segmentation")
        if found["segmentation"] is None:
            raise ConfigError(f"{at}: has no 'segmentation'; detection does without at masks=false")
        check_mask(found["segmentation"], (image["height"], image["width"]), at)
    return found


def _value(entry: Any, key: str, at: str, fits: Callable[[Any], bool]) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if value is None:
        raise ConfigError(f"{at}: has no {key!r}")
    if not fits(value):
        raise ConfigError(f"{at}: {key} {short(value)} is no {KINDS[key]}")
    return value


def _is_id(value: Any) -> bool:
    return type(value) is int


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


def _is_inside(value: Any) -> bool:
    """A path that does not lead out of the folder of images."""
    path = PurePath(value) if isinstance(value, str) else PurePath("/")
    return not path.is_absolute() and ".." not in path.parts


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


KINDS = {
    **dict.fromkeys(("id", "image_id", "category_id"), "whole number"),
    **dict.fromkeys(("width", "height"), "whole number above 0"),
    **{"name": "string", "file_name": "path inside the folder of images", "area": "number"},
    **{"bbox": "list of four numbers", "iscrowd": "0 or 1"},
}


def _is_thin(entry: dict[str, Any], image: dict[str, Any]) -> bool:
    left, top, width, height = entry["bbox"]
    inside = (
        min(left + width, image["width"]) - max(left, 0),
        min(top + height, image["height"]) - max(top, 0),
    )
    return min(inside) < MIN_SIDE


# ---------------------------------------------------------------- files


def _check_files(coco: Coco, where: str) -> None:
    """Headers only. What cannot be decoded is found, counted and left out when it is needed."""
    missing, other = [], []
    for image in coco.images:
        path = coco.folder / image["file_name"]
        if not path.is_file():
            missing.append(image["file_name"])
        elif _size(path) not in (None, (image["width"], image["height"])):
            other.append(image["file_name"])
    count = len(coco.images)
    if missing:
        raise ConfigError(
            f"{where}: {len(missing)} of {count} images are not in {coco.folder} ({_few(missing)})"
        )
    if other:
        raise ConfigError(
            f"{where}: {len(other)} of {count} images have not the width and height of their"
            f" annotations ({_few(other)})"
        )


def _size(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as opened:
            return opened.size
    except Exception:  # damaged data make Pillow raise nearly anything
        return None


def _few(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
