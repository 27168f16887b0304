"""Transforms of many images at once, on whatever device they are.

Shape suffixes: N images, P parameters of a transform, C, H, W of an image, S side of a crop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vissl_lite.compiler import missing

CHUNK = {"cpu": 2**20, "cuda": 2**26}  # pixels at a time; on a CPU, its cache holds their planes
COMPILED_CHUNK = 2**18  # of a CPU
LATENCY_S = 60.0  # what compiling costs on a CPU, per view group
SAVED_S = 10e-9  # what it saves there, per pixel


class Chain:
    """Transforms in a row, rounding after each of them as the reference does."""

    def __init__(self, transforms: Sequence[Any]):
        self.transforms = transforms

    def __call__(self, x_NCHW: Tensor, p_NP: Sequence[Tensor]) -> Tensor:
        """uint8 from uint8."""
        x_NCHW = x_NCHW.float()
        for transform, p in zip(self.transforms, p_NP):
            x_NCHW = transform.on_batch(x_NCHW, p).add(0.5).floor_()
        return x_NCHW.clamp_(0, 255).to(torch.uint8)


class Batched:
    """A chain applied to any number of images, a chunk at a time.

    Args:
        size: pixels per side of the largest image under way.
        compiled_for: number of images for which the chain is compiled, which takes up to a minute
            at the first such call; 0: never. Other numbers of images do not wait for that. On a
            CPU the result is the same; on a GPU compiled code multiplies, adds and divides with
            other roundings, and some values may come out as their neighbours.
    """

    def __init__(self, transforms: Sequence[Any], size: int, compiled_for: int = 0):
        self.chain, self.size, self.compiled_for = Chain(transforms), size, compiled_for
        self.compiled: Any = torch.compile(self.chain, dynamic=False) if compiled_for else None

    @torch.no_grad()
    def __call__(
        self,
        rows_N: Tensor,
        p_NP: Sequence[Tensor],
        load: Callable[[Tensor], Tensor] = lambda rows: rows,
    ) -> Tensor:
        """uint8 [N, C, S, S].

        Args:
            rows_N: the images, or anything of that length that `load` makes images of.
            p_NP: parameters of every transform.
            load: uint8 [n, C, H, W] from n of the rows.
        """
        if not self.chain.transforms:
            return load(rows_N)
        compiled = self.compiled_for == len(rows_N) > 0
        run = self.compiled if compiled else self.chain
        n = self._at_a_time(len(rows_N), rows_N.device.type, compiled)
        done = []
        for start in range(0, len(rows_N), n):
            part = slice(start, start + n)
            x_NCHW = load(_padded(rows_N[part], n if compiled else 0))
            p = [_padded(p[part], n if compiled else 0) for p in p_NP]
            done.append(run(x_NCHW, p)[: len(rows_N) - start])
        return done[0] if len(done) == 1 else torch.cat(done)

    def _at_a_time(self, count: int, device: str, compiled: bool) -> int:
        """Compiled code is for one number of rows, hence equal parts."""
        chunk = COMPILED_CHUNK if compiled and device == "cpu" else CHUNK[device]
        most = max(1, chunk // self.size**2)
        return -(-count // -(-count // most)) if compiled else most


def _padded(values_N: Tensor, length: int) -> Tensor:
    """The last value repeated up to `length`."""
    if len(values_N) >= length:
        return values_N
    last = values_N[-1:].expand(length - len(values_N), *values_N.shape[1:])
    return torch.cat([values_N, last])


def worth_compiling(device: torch.device, crops: int, size: int) -> bool:
    """Whether compiling earns back its time within a run of so many crops, and can be done here."""
    if device.type == "cpu" and crops * size**2 * SAVED_S <= LATENCY_S:
        return False
    return missing(device) is None
