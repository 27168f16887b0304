"""Squares cut out of images, also beyond their edges.

Shape suffixes: N images, C channels, H, W of an image, S side of the square.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vissl_lite.data.transform import placed

Mode = Literal["constant", "reflect", "symmetric", "edge"]


def cut(pixels: np.ndarray, box: Sequence[float], mode: Mode, out: np.ndarray | None) -> np.ndarray:
    """[S, S, 3]: the pixels of a box (left, top, right, bottom), continued by `mode`."""
    height, width, _ = pixels.shape
    left, top, right, bottom = map(int, box)
    margins = [(max(-top, 0), max(bottom - height, 0)), (max(-left, 0), max(right - width, 0))]
    if margins != [(0, 0), (0, 0)]:
        pixels = np.pad(pixels, [*margins, (0, 0)], mode)
    below = pixels[max(top, 0) :, max(left, 0) :]
    return placed(below[: bottom - top, : right - left], out)


def cut_batch(x_NCHW: Tensor, box_N4: Tensor, size: int, mode: Mode) -> Tensor:
    """[N, C, S, S]: `cut` for squares of S pixels, first their rows, then their columns."""
    height, width = x_NCHW.shape[2:]
    s_S = torch.arange(size, device=x_NCHW.device)
    j_NS, i_NS = box_N4[:, 0, None].long() + s_S, box_N4[:, 1, None].long() + s_S
    i_N1S1, j_N11S = i_NS[:, None, :, None], j_NS[:, None, None]
    rows_NCSW = continued(i_N1S1, height, mode).expand(*x_NCHW.shape[:2], size, width)
    columns_NCSS = continued(j_N11S, width, mode).expand(*x_NCHW.shape[:2], size, size)
    found_NCSS = x_NCHW.gather(2, rows_NCSW).gather(3, columns_NCSS)
    if mode == "constant":
        found_NCSS *= (i_N1S1 >= 0) & (i_N1S1 < height)
        found_NCSS *= (j_N11S >= 0) & (j_N11S < width)
    return found_NCSS


def continued(i: Any, side: int, mode: Mode) -> Any:
    """The pixel that stands for pixel i, which may lie outside of 0..side - 1.

    reflect: 3 2 1 | 0 1 2 3 | 2 1 0;  symmetric: 2 1 0 | 0 1 2 3 | 3 2 1;  otherwise the edge.

    Args:
        i: an array or a tensor of integers.
    """
    if mode == "reflect":
        last = side - 1
        return last - abs(last - i % max(2 * last, 1))
    if mode == "symmetric":
        return (2 * side - 1 - abs(2 * side - 1 - 2 * (i % (2 * side)))) // 2
    return i.clip(0, side - 1)
