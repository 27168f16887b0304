"""Masks in COCO's formats: polygons, and lengths of runs as numbers or as a string.

Shape suffixes: H, W of an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vissl_lite.errors import ConfigError


def check_mask(mask: Any, size_HW: tuple[int, int], at: str) -> None:
    """pycocotools gives random pixels for runs that do not fill the image, without an error."""
    if isinstance(mask, list):
        if not mask or not all(map(_is_polygon, mask)):
            raise ConfigError(
                f"{at}: segmentation {short(mask)} is no list of polygons, each of three or more"
                " points [x1, y1, x2, y2, ...]"
            )
    elif not isinstance(mask, dict) or "counts" not in mask or "size" not in mask:
        raise ConfigError(
            f"{at}: segmentation {short(mask)} is neither polygons nor runs with 'size' and"
            " 'counts'"
        )
    elif mask["size"] != list(size_HW) or sum(_runs(mask["counts"], at)) != math.prod(size_HW):
        raise ConfigError(
            f"{at}: its runs are not those of an image of {size_HW[1]} x {size_HW[0]} pixels"
        )


def _is_polygon(value: Any) -> bool:
    fits = isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0
    return fits and all(map(is_number, value))


def _runs(counts: Any, at: str) -> list[int]:
    """Lengths of runs, given as numbers or as COCO's string of differences, six bits a character.

    Every character holds five bits, low ones first, and whether another one follows; from the third
    run on a number is the difference to the one two places before.
    """
    if isinstance(counts, list):
        runs = counts
    else:
        runs, value, shift = [], 0, 0
        for character in counts if isinstance(counts, str) else "":
            bits = ord(character) - 48
            value, shift = value | (bits & 31) << shift, shift + 5
            if not bits & 32:
                value -= (bits >> 4 & 1) << shift
                runs.append(value + (runs[-2] if len(runs) > 2 else 0))
                value, shift = 0, 0
    if not runs or any(type(run) is not int or run < 0 for run in runs):
        raise ConfigError(f"{at}: counts {short(counts)} are no lengths of runs")
    return runs


def decoded(mask: Any, size_HW: Sequence[int], place: str) -> np.ndarray:
    """The pixels of a checked mask, uint8 [H, W]."""
    tools = mask_tools(place)
    runs = tools.frPyObjects(mask, *size_HW) if _needs_encoding(mask) else mask
    return tools.decode(tools.merge(runs) if isinstance(runs, list) else runs)


def _needs_encoding(mask: Any) -> bool:
    return isinstance(mask, list) or isinstance(mask["counts"], list)


def mask_tools(place: str) -> Any:
    """`pycocotools.mask`.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pycocotools.mask
    except ImportError:
        raise ConfigError(
            f"{place}: needs pycocotools; pip install 'vissl-lite[detection]'"
        ) from None
    return pycocotools.mask


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
