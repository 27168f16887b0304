"""Names of image files, and lists of those to leave out."""

import os
from pathlib import Path

# the endings that torchvision.datasets.folder takes for images
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def read_excluded(path: Path | None) -> frozenset[str]:
    """The names in a text file, one per line; empty without a file."""
    if path is None:
        return frozenset()
    lines = (os.fsdecode(line).strip() for line in path.read_bytes().splitlines())
    return frozenset(line for line in lines if line)
