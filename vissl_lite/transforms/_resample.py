"""Crops resized with antialiasing, a whole batch at once, by one matrix per image and axis.

Shape suffixes: N images, C channels, H, W of the images, S, T of the result, L pixels of a side,
R = H * C rows, Q = C * T columns.
"""

from typing import Literal

import torch
from torch import Tensor


def crop_resize(
    x_NCHW: Tensor,
    box_N4: Tensor,
    size: tuple[int, int],
    interpolation: Literal["bilinear", "bicubic"],
) -> Tensor:
    """[N, C, S, T]: each image cut to its box and resized.

        y[s, t] = round(sum_h a[s, h] round(sum_w b[t, w] x[h, w]))

    Pillow goes across first and rounds in between, too; without that, values differ by 0.13.

    Args:
        box_N4: left, top, right, bottom, whole numbers within the image.
        size: height S and width T.
    """
    left_N, top_N, right_N, bottom_N = box_N4.unbind(1)
    across_NTW = weights(left_N, right_N, x_NCHW.shape[3], size[1], interpolation)
    down_NSH = weights(top_N, bottom_N, x_NCHW.shape[2], size[0], interpolation)
    y_NRT = _rounded(x_NCHW.transpose(1, 2).flatten(1, 2) @ across_NTW.mT)
    y_NHQ = y_NRT.unflatten(1, (x_NCHW.shape[2], -1)).flatten(2)
    return _rounded(down_NSH @ y_NHQ).unflatten(2, (-1, size[1])).transpose(1, 2)


def _rounded(x: Tensor) -> Tensor:
    """In place; a half goes up, as in Pillow."""
    return x.add_(0.5).floor_().clamp_(0, 255)


def weights(first_N: Tensor, last_N: Tensor, length: int, size: int, interpolation: str) -> Tensor:
    """[N, S, L]: how much each of L pixels counts in each of S that stand for first..last.

        z = (last - first) / S                      source pixels per pixel of the result
        w[s, l] = k((l + 1/2 - first - (s + 1/2) z) / max(z, 1)),  0 outside of first..last
        each row is divided by its sum

    When shrinking, the kernel k becomes as wide as z pixels: that is the antialiasing.
    """
    if interpolation == "bilinear" and length <= size:
        return _upsampling(first_N[:, None], last_N[:, None], length, size)
    zoom_N1 = ((last_N - first_N) / size)[:, None]
    wide_N1 = zoom_N1.clamp(min=1)
    s_S = torch.arange(size, device=first_N.device, dtype=first_N.dtype) + 0.5
    l_L = torch.arange(length, device=first_N.device, dtype=first_N.dtype) + 0.5
    inside_NL = (l_L > first_N[:, None]) & (l_L < last_N[:, None])
    pixel_NL, centre_NS = (l_L - first_N[:, None]) / wide_N1, s_S * zoom_N1 / wide_N1
    w_NSL = KERNELS[interpolation](pixel_NL[:, None] - centre_NS[:, :, None])
    w_NSL *= inside_NL[:, None]
    return w_NSL.div_(w_NSL.sum(-1, keepdim=True))


def _upsampling(first_N1: Tensor, last_N1: Tensor, length: int, size: int) -> Tensor:
    """The same where no crop can shrink: each pixel lies between two, or on one at the edge."""
    s_S = torch.arange(size, device=first_N1.device, dtype=first_N1.dtype) + 0.5
    l_L = torch.arange(length, device=first_N1.device, dtype=first_N1.dtype)
    at_NS = s_S * ((last_N1 - first_N1) / size) + first_N1 - 0.5
    at_NS = torch.minimum(torch.maximum(at_NS, first_N1), last_N1 - 1)
    return triangle(at_NS[:, :, None] - l_L)


def triangle(d: Tensor) -> Tensor:
    """1 - |d|, not below 0."""
    return d.abs().neg_().add_(1).clamp_(min=0)


def cubic(d: Tensor, a: float = -0.5) -> Tensor:
    """Cubic convolution (Keys 1981); a = -1/2 is its best value, and Pillow's for resizing."""
    d = d.abs()
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = a * (((d - 5) * d + 8) * d - 4)
    return torch.where(d < 1, near, torch.where(d < 2, far, 0.0))


KERNELS = {"bilinear": triangle, "bicubic": cubic}
