"""From one decoded image to its crops.

V crops of one view group, S side of a crop in pixels.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vissl_lite import TRANSFORMS
from vissl_lite.config import ViewGroup as GroupConfig
from vissl_lite.data.random import generator
from vissl_lite.errors import ConfigError
from vissl_lite.schema import conform, plain

Transform = Callable[[Image.Image, np.random.Generator], Image.Image]


@dataclass(frozen=True)
class ViewGroup:
    """`count` crops of `size` x `size` pixels, made by the same transforms in this order."""

    count: int
    size: int
    transforms: Sequence[Transform]


class Views:
    """All crops of an image, as a pure function of the image and of where it is.

    Attributes:
        counts: crops of each group.
        sizes: pixels per side of each group's crops.
    """

    def __init__(self, groups: Sequence[ViewGroup], where: str = "data.views"):
        self.groups, self.where = list(groups), where
        self.counts = [group.count for group in self.groups]
        self.sizes = [group.size for group in self.groups]

    @classmethod
    def build(cls, config: Any, where: str = "data.views") -> "Views":
        """From a list of {size, transforms, count}.

        Raises:
            ConfigError: with everything that `problems` finds.
        """
        groups, found = _build(config, where)
        if found:
            raise ConfigError(*found)
        return cls(groups, where)

    def __call__(
        self, image: Image.Image, seed: int, epoch: int, position: int
    ) -> list[np.ndarray]:
        """The crops of one image; crop v, counted over all groups, has a generator of its own.

        Args:
            image: mode RGB, any size; it is not changed.
            position: place of the image in the order of the epoch.

        Returns:
            One uint8 array [V, S, S, 3] per group.

        Raises:
            ConfigError: the transforms of a group do not end in its size.
        """
        numbers = itertools.count()
        arrays = []
        for g, group in enumerate(self.groups):
            crops_VSSC = np.empty((group.count, group.size, group.size, 3), np.uint8)
            for v in range(group.count):
                rng = generator(seed, epoch, position, next(numbers))
                crops_VSSC[v] = np.asarray(self._crop(image, g, rng))
            arrays.append(crops_VSSC)
        return arrays

    def _crop(self, image: Image.Image, g: int, rng: np.random.Generator) -> Image.Image:
        size = self.sizes[g]
        for transform in self.groups[g].transforms:
            image = transform(image, rng)
        if image.size != (size, size):
            raise ConfigError(
                f"{self.where}[{g}]: its transforms give {image.width}x{image.height} pixels"
                f" instead of {size}x{size}; add random_resized_crop, or resize and center_crop"
            )
        return image


def problems(config: Any, where: str = "data.views") -> list[str]:
    """Every mistake in a list of view groups, each a sentence with its place."""
    return _build(config, where)[1]


def _build(config: Any, where: str) -> tuple[list[ViewGroup], list[str]]:
    config = plain(config)
    if not isinstance(config, list) or not config:
        return [], [f"{where}: {config!r} is no list of groups, each with a size and transforms"]
    groups, found = [], []
    for g, group in enumerate(config):
        group, wrong = conform(group, GroupConfig, f"{where}[{g}]")
        if not wrong:
            group, wrong = _build_group(group, f"{where}[{g}]")
        groups.append(group)
        found += wrong
    return groups, found


def _build_group(config: GroupConfig, where: str) -> tuple[ViewGroup, list[str]]:
    wrong = [
        f"{where}.{key}: {getattr(config, key)} must be at least 1"
        for key in ("count", "size")
        if getattr(config, key) < 1
    ]
    transforms = []
    for t, transform in enumerate(config.transforms):
        try:
            transforms.append(
                TRANSFORMS.build(transform, f"{where}.transforms[{t}]", size=max(config.size, 1))
            )
        except ConfigError as error:
            wrong += error.problems
    return ViewGroup(config.count, config.size, transforms), wrong
