"""An image whose size is known before its pixels are: what the fast back end crops from.

JPEG data go through libjpeg-turbo (simplejpeg, of the optional extra `fast`), which gives Pillow's
pixels bit for bit in about 0.7 of its time. Everything else, and everything that simplejpeg
refuses, goes through `decode`: both back ends read the same files, and refuse the same files in
the same words. Content decides, never the extension; EXIF orientation is not applied.

Shape suffixes: H, W, C of an image.
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vissl_lite.data.decode import decode

Encoded = bytes | bytearray | memoryview

JPEG = b"\xff\xd8\xff"  # start of image, and the next marker
PLAIN_COLORS = ("YCbCr", "RGB", "Gray")  # Pillow alone knows what to do with CMYK and YCCK
SHRINKS = (1, 2, 4, 8)  # the scales at which the inverse DCT is faster than in full
WORTH_SHRINKING = 600_000  # pixels: in smaller images, nearly all of the time is Huffman decoding
MARGIN = 2.0  # as in Pillow's thumbnail(reducing_gap=2.0): see `largest_shrink`


@dataclass(frozen=True)
class Picture:
    """Width and height of an image, and on demand its pixels.

    Attributes:
        width, height: of the whole image, in pixels.
        image: what `decode` takes.
        name: what a message calls the image.
        jpeg: encoded data that simplejpeg may try, or None.
    """

    width: int
    height: int
    image: Any
    name: str = ""
    jpeg: Encoded | None = None

    def pixels(self, shrink: int = 1) -> np.ndarray:
        """uint8 [ceil(H / shrink), ceil(W / shrink), 3]; not to be written to.

        Args:
            shrink: 1, 2, 4 or 8. A JPEG is then decoded at this fraction of its size (DCT scaling,
                as by Pillow's `draft`); of anything else, blocks of pixels are averaged.

        Raises:
            BrokenImage: as `decode` does.
        """
        if self.jpeg is not None:
            with suppress(ValueError):  # damaged, maybe so little that Pillow reads it
                return _decode_jpeg(self.jpeg, self.height, self.width, shrink)
        pixels_HWC = _pixels(self.image, self.name)
        if shrink == 1:
            return pixels_HWC
        return np.asarray(Image.fromarray(pixels_HWC).reduce(shrink))

    def largest_shrink(self, needed: float) -> int:
        """The strongest DCT scaling at which no crop loses resolution.

        What it leaves has MARGIN pixels or more for each pixel of a view, side by side: measured
        on photographs, crops then differ from those of the whole by 0.5/255 on average, and by
        1.3/255 with a margin of 1. Boxes rounded to the scaled pixels come to 1.6/255 and 2.9/255
        (`benchmarks/data_meaning.py --only transforms`).

        Args:
            needed: side of a crop over side of its view, the smallest of all crops.

        Returns:
            The largest k of 1, 2, 4, 8 with MARGIN * k <= needed; 1 for what is no JPEG, or is
            too small for DCT scaling to pay.
        """
        if not self.shrinkable:
            return 1
        return max(k for k in SHRINKS if k == 1 or MARGIN * k <= needed)

    @property
    def shrinkable(self) -> bool:
        """Whether it is a JPEG so large that DCT scaling pays."""
        return self.jpeg is not None and self.width * self.height >= WORTH_SHRINKING


def open_picture(image: Any, name: str = "") -> Picture:
    """Reads the size of an image; of a JPEG, nothing else is decoded yet.

    Args:
        image: encoded bytes, a path, a PIL image, or a uint8 array [H, W, 3] or [H, W].
        name: what a message calls the image; a path names itself.

    Raises:
        BrokenImage, TypeError: as `decode` does.
    """
    jpeg = _jpeg(image)
    size = None if jpeg is None else _size(jpeg)
    if size is not None:
        return Picture(*size, image, name, jpeg)
    pixels_HWC = _pixels(image, name)
    return Picture(pixels_HWC.shape[1], pixels_HWC.shape[0], pixels_HWC, name)


def _jpeg(image: Any) -> Encoded | None:
    """The data of a JPEG; None for everything that is Pillow's, unreadable files included."""
    if _simplejpeg() is None:
        return None
    if isinstance(image, Encoded):
        return image if bytes(image[:3]) == JPEG else None
    if isinstance(image, (str, Path)):
        with suppress(OSError, ValueError), open(image, "rb") as file:
            return file.read() if file.peek(3)[:3] == JPEG else None
    return None


def _size(jpeg: Encoded) -> tuple[int, int] | None:
    """Width and height; None if Pillow has to see it: damaged, CMYK, or suspiciously large."""
    try:
        height, width, colors, _ = _simplejpeg().decode_jpeg_header(jpeg)
    except ValueError:
        return None
    limit = Image.MAX_IMAGE_PIXELS
    large = limit is not None and width * height > limit
    return None if large or colors not in PLAIN_COLORS else (width, height)


def _decode_jpeg(jpeg: Encoded, height: int, width: int, shrink: int) -> np.ndarray:
    """Of the scales n/8, simplejpeg takes the smallest whose result has at least these sides."""
    if shrink == 1:  # asked for its own sides, an image of few pixels would come at a lower scale
        return _simplejpeg().decode_jpeg(jpeg)
    sides = {"min_height": -(-height // shrink), "min_width": -(-width // shrink)}
    return _simplejpeg().decode_jpeg(jpeg, **sides)


def _pixels(image: Any, name: str) -> np.ndarray:
    """uint8 [H, W, 3]; an array that is that already is passed on, not copied."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,):
        return image
    return np.asarray(decode(image, name))


@cache
def _simplejpeg() -> Any:
    """The module, or None without the extra `fast`."""
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg
