"""Small pictures inside a page. Legend: H, W, C of an image; S side of a picture in pixels."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

from vissl_lite.report.page import Html, tag

QUALITY = 82  # of the JPEGs: a picture of 96 pixels takes 2 to 3 kB


def picture(pixels_HWC: np.ndarray, alt: str, side: int) -> Html:
    """An <img> of `side` pixels; smaller images are shown larger."""
    height, width = pixels_HWC.shape[:2]
    scale = side / max(height, width)
    size = {"width": max(1, round(width * scale)), "height": max(1, round(height * scale))}
    src = data_uri(pixels_HWC, 2 * side)  # twice as fine, for screens with small pixels
    return tag("img", src=src, alt=alt, **size)


def data_uri(pixels_HWC: np.ndarray, side: int) -> str:
    """A JPEG of at most `side` pixels, as an address that holds it."""
    image = Image.fromarray(pixels_HWC)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    tiny = max(image.size) <= 64  # JPEG would smear the few pixels that there are
    image.save(file, "PNG" if tiny else "JPEG", **({} if tiny else {"quality": QUALITY}))
    kind = "png" if tiny else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def tiles(pictures: Iterable[tuple[Html, Any]]) -> Html:
    """Pictures in a row that wraps, each with what stands below it."""
    items = [
        tag("li", tag("figure", image, tag("figcaption", below) if below else None))
        for image, below in pictures
    ]
    return tag("ul", items, class_="tiles")
