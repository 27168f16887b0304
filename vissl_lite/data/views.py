"""From one decoded image to its crops: what is asked for, the random numbers, and the plain way.

The plain way, `Views.crop`, is Pillow from end to end: the reference that `fast.py` and `memory.py`
have to agree with. Shape suffixes: V crops of one view group, B positions, D uniforms, S side of a
crop in pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vissl_lite import TRANSFORMS
from vissl_lite.config import ViewGroup as GroupConfig
from vissl_lite.data.decode import decode
from vissl_lite.data.random import generator, uniforms
from vissl_lite.data.transform import Transform
from vissl_lite.errors import ConfigError
from vissl_lite.schema import conform, plain

AnyTransform = Transform | Callable[[Image.Image, np.random.Generator], Image.Image]


@dataclass(frozen=True)
class ViewGroup:
    """`count` crops of `size` x `size` pixels, made by the same transforms in this order."""

    count: int
    size: int
    transforms: Sequence[AnyTransform]


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
            ConfigError: with every mistake in it.
        """
        groups, found = _build(config, where)
        if found:
            raise ConfigError(*found)
        return cls(groups, where)

    def draw(self, seed: int, epoch: int, positions_B: np.ndarray) -> "Draws":
        """The random numbers of all crops of the images at these positions."""
        return Draws(self.groups, seed, epoch, positions_B)

    def __call__(
        self, image: Image.Image, seed: int, epoch: int, position: int
    ) -> list[np.ndarray]:
        """The crops of one image, made by the reference.

        Args:
            image: mode RGB, any size; it is not changed.
            position: place of the image in the order of the epoch.

        Returns:
            One uint8 array [V, S, S, 3] per group.

        Raises:
            ConfigError: the transforms of a group do not end in its size.
        """
        draws = self.draw(seed, epoch, np.array([position]))
        return [
            np.stack([self.crop(image, draws, g, v, 0) for v in range(count)])
            for g, count in enumerate(self.counts)
        ]

    def write(
        self, image: Any, name: str, draws: "Draws", b: int, outs: Sequence[np.ndarray]
    ) -> None:
        """Decodes an image and writes its crops as image b of a batch.

        Args:
            image, name: of a `Sample`.
            outs: uint8 [V, B, S, S, 3] for every group.

        Raises:
            BrokenImage: it cannot be read.
        """
        decoded = decode(image, name)
        for g, out_VBSSC in enumerate(outs):
            for v in range(self.counts[g]):
                out_VBSSC[v, b] = self.crop(decoded, draws, g, v, b)

    def crop(self, image: Image.Image, draws: "Draws", g: int, v: int, b: int) -> np.ndarray:
        """Crop v of group g: uint8 [S, S, 3]."""
        for t, transform in enumerate(self.groups[g].transforms):
            if isinstance(transform, Transform):
                u_1D = draws.uniforms(g, t)[v, b : b + 1]
                p = transform.parameters(u_1D, *image.size)[0].tolist()
                image = transform.on_image(image, p)
            else:
                image = transform(image, draws.generator(g, t, v, b))
        return self.check_size(g, np.asarray(image))

    def check_size(self, g: int, pixels: np.ndarray) -> np.ndarray:
        height, width, _ = pixels.shape
        size = self.sizes[g]
        if (height, width) != (size, size):
            raise ConfigError(
                f"{self.where}[{g}]: its transforms give {width}x{height} pixels"
                f" instead of {size}x{size}; add random_resized_crop, or resize and center_crop"
            )
        return pixels


class Draws:
    """The random numbers of a batch: functions of (seed, epoch, position, view, transform).

    The crops are counted over all groups; the transforms of a group have numbers of their own, so
    that changing one of them leaves what the others do as it was.
    """

    def __init__(self, groups: Sequence[ViewGroup], seed: int, epoch: int, positions_B: np.ndarray):
        self.groups, self.seed, self.epoch, self.positions_B = groups, seed, epoch, positions_B
        counts = [group.count for group in groups]
        self.first_view = [sum(counts[:g]) for g in range(len(counts))]
        self._drawn: dict[tuple[int, int], np.ndarray] = {}

    def uniforms(self, g: int, t: int) -> np.ndarray:
        """[V, B, D]: what transform t of group g takes."""
        if (g, t) not in self._drawn:
            draws = self.groups[g].transforms[t].draws  # pyright: ignore
            views = range(self.first_view[g], self.first_view[g] + self.groups[g].count)
            self._drawn[g, t] = np.stack(
                [uniforms(self.seed, self.epoch, self.positions_B, v, t, draws) for v in views]
            )
        return self._drawn[g, t]

    def generator(self, g: int, t: int, v: int, b: int) -> np.random.Generator:
        """For a transform that takes as many numbers as it likes."""
        place = (t << 32) + self.first_view[g] + v
        return generator(self.seed, self.epoch, int(self.positions_B[b]), place)


def _build(config: Any, where: str) -> tuple[list[ViewGroup], list[str]]:
    """The groups, and every mistake in them, each a sentence with its place."""
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
    transforms, wrong = [], []
    for t, transform in enumerate(config.transforms):
        try:
            transforms.append(
                TRANSFORMS.build(transform, f"{where}.transforms[{t}]", size=max(config.size, 1))
            )
        except ConfigError as error:
            wrong += error.problems
    return ViewGroup(config.count, config.size, transforms), wrong
