"""The fast way from an image to its crops: in the worker what needs the whole image, then the rest.

    worker: decode once; for every crop: cut, resize into its place in the batch's uint8 buffer
    device: what may follow, flips, colours, blur, for all crops of a group at once

Shape suffixes: V crops of one view group, B images, N = V * B, P parameters of a transform, S side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vissl_lite.data.picture import Picture, open_picture
from vissl_lite.data.transform import Transform, has_batch_form
from vissl_lite.data.views import AnyTransform, Draws, Views


@dataclass
class Chain:
    """The transforms of one group and where each of them runs.

    Attributes:
        settled: from this place in the list on, the image has the size of the view.
        device: from this place on, transforms run on the device.
    """

    transforms: Sequence[AnyTransform]
    size: int
    settled: int
    device: int

    @classmethod
    def of(cls, transforms: Sequence[AnyTransform], size: int, on_device: bool) -> Chain:
        settled = device = len(transforms)
        while settled and keeps_size(transforms[settled - 1]):
            settled -= 1
        while on_device and device > settled and has_batch_form(transforms[device - 1]):
            device -= 1
        return cls(transforms, size, settled, device)

    @cached_property
    def steps(self) -> list[tuple[int, AnyTransform, bool]]:
        """What the worker does: place, transform, and whether its result has the final size."""
        ends = self.settled and getattr(self.transforms[self.settled - 1], "shape", "") == "view"
        first_in_place = self.settled - 1 if ends else self.settled
        return [(t, self.transforms[t], t >= first_in_place) for t in range(self.device)]

    def parameters(self, draws: Draws, g: int, t: int) -> np.ndarray:
        """[V, B, P] of a transform that sees images of the final size."""
        u_VBD, transform = draws.uniforms(g, t), self.transforms[t]
        assert isinstance(transform, Transform)
        p_NP = transform.parameters(np.concatenate(u_VBD), self.size, self.size)
        return p_NP.reshape(*u_VBD.shape[:2], p_NP.shape[1])


def keeps_size(transform: AnyTransform) -> bool:
    return isinstance(transform, Transform) and transform.shape == "kept"


@dataclass
class Work:
    """What the images of one request share: per group, parameters by place in the list."""

    draws: Draws
    in_worker: list[dict[int, list]]
    on_device: list[list[Tensor]]


class FastViews:
    """Crops in the worker; flips, colours and blur there too, or on the device.

    Args:
        on_device: leave to the device what it can do.
        linear: resize crops without antialiasing: faster, and another image.
    """

    def __init__(self, views: Views, on_device: bool, linear: bool = False):
        self.views = views
        for transform in (t for group in views.groups for t in group.transforms):
            if hasattr(transform, "linear"):
                transform.linear = linear  # pyright: ignore
        self.groups, self.counts, self.sizes = views.groups, views.counts, views.sizes
        self.chains = [Chain.of(group.transforms, group.size, on_device) for group in views.groups]

    @property
    def leaves_work(self) -> bool:
        """Whether the device has anything to do."""
        return any(chain.device < len(chain.transforms) for chain in self.chains)

    def draw(self, seed: int, epoch: int, positions_B: np.ndarray) -> Work:
        draws = self.views.draw(seed, epoch, positions_B)
        work = Work(draws, [], [])
        for g, chain in enumerate(self.chains):
            places = range(chain.settled, len(chain.transforms))
            p = {t: chain.parameters(draws, g, t) for t in places}
            work.in_worker.append({t: p[t].tolist() for t in places if t < chain.device})
            work.on_device.append(
                [torch.from_numpy(p[t]).float() for t in places if t >= chain.device]
            )
        return work

    def write(self, image: Any, name: str, work: Work, b: int, outs: Sequence[np.ndarray]) -> None:
        """As `Views.write`; what the device has to do stays undone."""
        picture = open_picture(image, name)
        first = self._first(work, b, picture.width, picture.height)
        shrink = self._shrink(picture, first)
        pixels = picture.pixels(shrink)
        for g, out_VBSSC in enumerate(outs):
            rows = first[g]
            if rows is not None:
                rows = (rows / shrink if shrink > 1 else rows).tolist()
            for v in range(self.counts[g]):
                p = None if rows is None else rows[v]
                self._crop(pixels, work, g, v, b, p, out_VBSSC[v, b])

    def _first(self, work: Work, b: int, width: int, height: int) -> list[np.ndarray | None]:
        """[V, P] of each group's first transform, where that sees the whole image."""
        return [
            chain.transforms[0].parameters(work.draws.uniforms(g, 0)[:, b], width, height)
            if chain.settled and isinstance(chain.transforms[0], Transform)
            else None
            for g, chain in enumerate(self.chains)
        ]

    def _shrink(self, picture: Picture, first: Sequence[np.ndarray | None]) -> int:
        """How far a JPEG may shrink while it is decoded, so that no crop loses resolution."""
        if not picture.shrinkable:
            return 1
        needed = []
        for chain, rows_VP in zip(self.chains, first):
            if rows_VP is None or not getattr(chain.transforms[0], "cuts", False):
                return 1
            needed.append((rows_VP[:, 2:4] - rows_VP[:, 0:2]).min() / chain.size)
        return picture.largest_shrink(min(needed))

    def _crop(
        self,
        pixels: np.ndarray,
        work: Work,
        g: int,
        v: int,
        b: int,
        first: list[float] | None,
        out_SSC: np.ndarray,
    ) -> None:
        """Crop v of image b of group g, into its place.

        Args:
            first: parameters of the first transform, if it sees the whole image.
        """
        known = work.in_worker[g]
        for t, transform, in_place in self.chains[g].steps:
            if not isinstance(transform, Transform):
                rng = work.draws.generator(g, t, v, b)
                pixels = np.asarray(transform(Image.fromarray(pixels), rng))
                continue
            if t == 0 and first is not None:
                p = first
            elif t in known:
                p = known[t][v][b]
            else:
                u_1D = work.draws.uniforms(g, t)[v, b : b + 1]
                p = transform.parameters(u_1D, pixels.shape[1], pixels.shape[0])[0].tolist()
            if in_place and transform.shape == "kept":
                self.views.check_size(g, pixels)
            pixels = transform.on_array(pixels, p, out_SSC if in_place else None)
        if pixels is not out_SSC:
            out_SSC[...] = self.views.check_size(g, pixels)
