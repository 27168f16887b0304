"""How images are put before a trunk, in the words of transformers and of timm."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from vissl_lite import TRANSFORMS
from vissl_lite.config import Labelled
from vissl_lite.engine.weights import saved_config
from vissl_lite.export.subject import Subject

RESAMPLE = {"bilinear": 2, "bicubic": 3}  # Pillow's numbers


def for_transformers(subject: Subject) -> dict[str, Any] | None:
    """preprocessor_config.json: resize, crop and normalise, as evaluations of the run do.

    None where mean and std are unknown, or the run looks at images in another way.
    """
    trunk, side, shown = subject.trunk, subject.side, _shown(subject)
    if trunk.mean is None or shown is None:
        return None
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": shown.resizes,
        "size": {"shortest_edge": shown.short_side},
        "resample": RESAMPLE[shown.interpolation],
        "do_center_crop": shown.crops,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(trunk.mean),
        "image_std": list(trunk.std),
    }


def for_timm(subject: Subject) -> dict[str, Any]:
    """The part of timm's `pretrained_cfg` that is known."""
    trunk, side, shown = subject.trunk, subject.side, _shown(subject)
    found: dict[str, Any] = {"input_size": (subject.config["in_channels"], side, side)}
    if trunk.mean is not None:
        found |= {"mean": tuple(trunk.mean), "std": tuple(trunk.std)}
    if shown is not None:
        # timm rounds side / crop_pct down, which must give the short side
        found |= {"crop_pct": math.nextafter(side / shown.short_side, 0), "crop_mode": "center"}
        found |= {"interpolation": shown.interpolation}
    return found


def transforms(subject: Subject) -> list[dict[str, Any]]:
    """What evaluations of the run do to an image; the usual where there is no run."""
    labelled = saved_config(subject.run).get("labelled", {})
    return [TRANSFORMS.check(t) for t in labelled.get("transforms", Labelled().transforms)]


class Shown(NamedTuple):
    resizes: bool
    short_side: int
    interpolation: str
    crops: bool


def _shown(subject: Subject) -> Shown | None:
    """None for anything but nothing at all, `resize`, and `resize` with `center_crop`."""
    given = transforms(subject)
    if [t["name"] for t in given] != ["resize", "center_crop"][: len(given)]:
        return None
    if not given:
        return Shown(False, subject.side, "bilinear", False)
    short = given[0]["short_side"] or int(subject.side / given[0]["crop_fraction"])
    return Shown(True, short, given[0]["interpolation"], len(given) == 2)
