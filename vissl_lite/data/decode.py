"""From whatever a source hands out to an RGB image.

The reference back end: Pillow alone, for every format. As in torchvision and VISSL, the orientation
that EXIF data may ask for is not applied; of several frames the first is taken.
"""

import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError


class BrokenImage(Exception):
    """An image that cannot be read: the loader counts it and takes another in its place."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name or 'an image without a name'}: cannot be read, {self.reason}"


def decode(image: Any, name: str = "") -> Image.Image:
    """The image in mode RGB.

    16-bit grey keeps its high byte, CMYK and palettes are converted by Pillow, what is transparent
    lies on black.

    Args:
        image: encoded bytes, a path, a PIL image, or a uint8 array [H, W, 3] or [H, W].
        name: what a message calls the image; a path names itself.

    Raises:
        BrokenImage: missing, empty, truncated, of unknown format, with floating-point pixels, or a
            decompression bomb (more than 2 * PIL.Image.MAX_IMAGE_PIXELS pixels).
        TypeError: `image` is none of the four.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, (str, Path)):
        name = name or str(image)
    elif isinstance(image, (bytes, bytearray, memoryview)):
        image = io.BytesIO(image)
    elif not isinstance(image, Image.Image):
        raise TypeError(f"an image is bytes, a path, a PIL image or an array, not {type(image)}")
    try:
        if isinstance(image, Image.Image):
            return _to_rgb(image)
        with Image.open(image) as opened:
            return _to_rgb(opened)
    except Exception as error:  # damaged data make Pillow's decoders raise nearly anything
        raise BrokenImage(name, _reason(error, image)) from None


def _from_array(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or pixels.shape[2:] == (3,)):
        raise TypeError(
            f"an array must be uint8 [H, W, 3] or [H, W], not {pixels.dtype} {list(pixels.shape)}"
        )
    return Image.fromarray(pixels).convert("RGB")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        high_byte = (np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)
        return Image.fromarray(high_byte).convert("RGB")
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, "black")
        return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _reason(error: Exception, image: Any) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is empty" if _is_empty(image) else "Pillow does not know its format"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _is_empty(image: io.BytesIO | str | Path) -> bool:
    if isinstance(image, io.BytesIO):
        return not image.getbuffer()
    with suppress(OSError):  # deleted meanwhile
        return os.path.getsize(image) == 0
    return False
