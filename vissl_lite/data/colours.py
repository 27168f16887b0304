"""Flips, colours and blur of many images at once, with the numbers that Pillow gives.

Every function takes and gives floats that are whole numbers from 0 to 255, and one parameter per
image. Pillow rounds after every operation, and so do we. The results are Pillow's, but for a few
pixels in a thousand where a hue or a blurred value lies so close to the next whole number that the
order of divisions decides.

Two ways, one meaning. On a GPU and in compiled code every row is computed and what was not wanted
is dropped, since choosing rows would wait for the device; on a CPU only the rows wanted.

Shape suffixes: N images, C = 3 channels, H, W, P = H * W pixels, K weights of a box.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vissl_lite.data._jitter import all_rows, jitter_all, jitter_sorted, luma

HALF = 0.4999  # Pillow cuts the weights of its boxes to 24 bits, so that most ties go down

__all__ = ["blur", "flip", "grayscale", "jitter", "posterize", "solarize"]


def flip(x_NCHW: Tensor, on_N: Tensor) -> Tensor:
    """Swaps left and right where `on` is not 0."""
    if x_NCHW.device.type == "cpu" and torch.compiler.is_compiling():
        return _flip_by_product(x_NCHW, on_N)
    return _where(on_N != 0, x_NCHW, lambda x: x.flip(-1))


def _flip_by_product(x_NCHW: Tensor, on_N: Tensor) -> Tensor:
    """x times a permutation: on a CPU Inductor's own flip goes number by number."""
    w = x_NCHW.shape[3]
    place_W = torch.arange(w, dtype=x_NCHW.dtype)
    moved_NW = torch.where(on_N[:, None] != 0, w - 1 - place_W, place_W)
    moves_NWW = (1 - (moved_NW[:, :, None] - place_W).abs()).relu()
    return (x_NCHW.flatten(1, 2) @ moves_NWW).view(x_NCHW.shape)


def grayscale(x_NCHW: Tensor, on_N: Tensor) -> Tensor:
    """The luma in all three channels where `on` is not 0."""
    return _where(on_N != 0, x_NCHW, lambda x: luma(*x.unbind(1))[:, None].expand_as(x))


def solarize(x_NCHW: Tensor, threshold_N: Tensor) -> Tensor:
    """255 - x for values from a threshold upward; 256 leaves the image as it is."""
    return _where(
        threshold_N < 256,
        x_NCHW,
        lambda x, threshold: torch.where(x < threshold, x, 255 - x),
        threshold_N[:, None, None, None],
    )


def posterize(x_NCHW: Tensor, bits_N: Tensor) -> Tensor:
    """Keeps the highest bits of each value; 8 leaves the image as it is."""
    return _where(
        bits_N < 8,
        x_NCHW,
        lambda x, step: torch.floor(x / step) * step,
        torch.exp2(8 - bits_N).round()[:, None, None, None],
    )


def jitter(x_NCHW: Tensor, p_N8: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, for each image in an order of its own.

        brightness  x -> a x
        contrast    x -> m + a (x - m),  m the mean luma of the image
        saturation  x -> l + a (x - l),  l the luma of the pixel
        hue         (h, s, v) -> (h + a, s, v)

    each rounded down and kept within 0..255, with hue and saturation in 1/255, as in Pillow's HSV.

    Args:
        p_N8: the amounts a of these four (1, 1, 1, 0 leave an operation out; the hue in parts of
            the circle, from -1/2 to 1/2), then which of them, 0 to 3, comes first, second, third
            and last.
    """
    return (jitter_all if all_rows(x_NCHW) else jitter_sorted)(x_NCHW, p_N8)


def blur(x_NCHW: Tensor, sigma_N: Tensor, largest: float | None = None) -> Tensor:
    """Pillow's Gaussian blur: three times a box, across and then down, rounding after each.

    Sigmas such as 1/2 or 2 make many ties, where the last bit of Pillow's weights decides: there
    the mean difference is up to 0.13.

    Args:
        sigma_N: standard deviation in pixels; 0 leaves the image as it is.
        largest: no sigma is larger. Without it the largest is looked up, which waits for a GPU.
    """
    largest = max(sigma_N.tolist(), default=0.0) if largest is None else largest
    return _where(sigma_N > 0, x_NCHW, _three_boxes, box(sigma_N, largest))


def box(sigma_N: Tensor, largest: float) -> Tensor:
    """[N, K]: weights at distance 0, 1, ... K - 1 of a box whose variance is sigma^2 / 3.

        b(k) = clamp(r + 1 - |k|, 0, 1) / (2 r + 1),  so that the last pixel may count in part
        r    = l + (2 l + 1) (l (l + 1) - sigma^2) / (2 (sigma^2 - 3 (l + 1)^2))
        l    = floor((sqrt(4 sigma^2 + 1) - 1) / 2),  the pixels on either side that count in full

    Gwosdek et al. 2011, Theoretical foundations of Gaussian convolution by extended box filtering.
    """
    square_N = sigma_N * sigma_N
    l_N = torch.floor((torch.sqrt(4 * square_N + 1) - 1) / 2)
    part_N = (2 * l_N + 1) * (l_N * (l_N + 1) - square_N) / (2 * (square_N - 3 * (l_N + 1) ** 2))
    r_N1 = (l_N + part_N)[:, None]
    reach = int(((4 * largest**2 + 1) ** 0.5 - 1) / 2) + 1
    k_K = torch.arange(reach + 1, device=sigma_N.device)
    return (r_N1 + 1 - k_K).clamp(0, 1) / (2 * r_N1 + 1)


def _three_boxes(x_NCHW: Tensor, b_NK: Tensor) -> Tensor:
    weights = [b_N[:, None, None, None] for b_N in b_NK.unbind(1)]
    for axis in (3, 3, 3, 2, 2, 2):
        x_NCHW = _smooth(x_NCHW, weights, axis)
    return x_NCHW


def _smooth(x_NCHW: Tensor, weights: Sequence[Tensor], axis: int) -> Tensor:
    """y[i] = sum_k b(k) x[i + k], edges repeated, rounded."""
    reach, length = len(weights) - 1, x_NCHW.shape[axis]
    margins = (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach)
    wide = F.pad(x_NCHW, margins, mode="replicate")
    y_NCHW = x_NCHW * weights[0]
    for k in range(1, reach + 1):
        pair = wide.narrow(axis, reach - k, length) + wide.narrow(axis, reach + k, length)
        y_NCHW += pair.mul_(weights[k])
    return y_NCHW.add_(HALF).floor_()


def _where(on_N: Tensor, x_NCHW: Tensor, change: Callable[..., Tensor], *p_N: Any) -> Tensor:
    """`change(x, *p)` in the rows that are on."""
    if all_rows(x_NCHW):
        return torch.where(on_N[:, None, None, None], change(x_NCHW, *p_N), x_NCHW)
    rows = on_N.nonzero()[:, 0]
    changed = change(x_NCHW.index_select(0, rows), *(p.index_select(0, rows) for p in p_N))
    return x_NCHW.index_copy(0, rows, changed)
