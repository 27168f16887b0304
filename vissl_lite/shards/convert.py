"""From an image of a source to the bytes that shards keep of it."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vissl_lite.data.batch import Sample
from vissl_lite.data.decode import BrokenImage, decode

GIB = 1 << 30


@dataclass(frozen=True)
class Settings:
    """How images are kept.

    Attributes:
        short_side: images whose shorter side is longer are shrunk to it; None: never.
        quality: of the JPEGs that shrunk images become.
        raw: keep pixels.
        shard_size: bytes at which the next data file begins.
    """

    short_side: int | None = None
    quality: int = 90
    raw: bool = False
    shard_size: int = GIB


@dataclass
class Chunk:
    """Consecutive images of a source, [start, stop), as they go into the shards.

    Attributes:
        contents: of the readable images.
        sizes: (width, height) of each.
        names, labels, tags: as the source has them.
        broken: (name, reason) of the others.
    """

    start: int
    stop: int
    contents: list[bytes] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    labels: list[int | None] = field(default_factory=list)
    tags: list[Sequence[int] | None] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)


def convert_chunk(source: Any, settings: Settings, start: int, stop: int) -> Chunk:
    chunk = Chunk(start, stop)
    for index in range(start, stop):
        try:
            sample = source[index]
            content, size = convert(sample, settings)
        except BrokenImage as error:
            chunk.broken.append((error.name or f"image {index}", error.reason))
            continue
        chunk.contents.append(content)
        chunk.sizes.append(size)
        chunk.names.append(sample.name)
        chunk.labels.append(None if sample.label is None else int(sample.label))
        chunk.tags.append(None if sample.tags is None else [int(tag) for tag in sample.tags])
    return chunk


def convert(sample: Sample, settings: Settings) -> tuple[bytes, tuple[int, int]]:
    """The bytes to keep of an image, and its (width, height).

        raw             the pixels, uint8 [H, W, 3]
        shrunk          JPEG of the given quality, 4:2:0
        neither         the encoded image bit for bit; PNG, if the source gave pixels

    Every image is decoded whole, so that a broken one is found here and not in training.

    Raises:
        BrokenImage: it cannot be read.
    """
    encoded = _encoded(sample)
    image = decode(sample.image if encoded is None else encoded, sample.name)
    kept = shrink(image, settings.short_side)
    if settings.raw:
        return np.asarray(kept).tobytes(), kept.size
    if kept is image:
        return encoded or _saved(image, "PNG"), image.size
    # 4:2:0 is what Pillow, OpenCV and most cameras write; 4:4:4 takes longer to decode
    return _saved(kept, "JPEG", quality=settings.quality, subsampling="4:2:0"), kept.size


def shrink(image: Image.Image, short_side: int | None) -> Image.Image:
    """The image, or a smaller one of the same shape whose shorter side is `short_side` pixels.

    Lanczos keeps most of what the smaller image can hold: training resizes once more, and with a
    softer filter images from shards would be blurred twice.
    """
    if short_side is None or min(image.size) <= short_side:
        return image
    factor = short_side / min(image.size)
    width, height = (max(short_side, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _encoded(sample: Sample) -> bytes | None:
    """The encoded image; None where the source gives pixels."""
    if isinstance(sample.image, (str, Path)):
        try:
            return Path(sample.image).read_bytes()
        except OSError as error:
            raise BrokenImage(sample.name, error.strerror or str(error)) from None
    encoded = isinstance(sample.image, (bytes, bytearray, memoryview))
    return bytes(sample.image) if encoded else None


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
