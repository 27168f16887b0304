"""Brightness, contrast, saturation and hue of many images, each in an order of its own.

Functions whose names end in _ overwrite the planes they are given. Shape suffixes: N images, P
pixels; `rgb` is three planes [N, P] of whole numbers from 0 to 255.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

RED, GREEN, BLUE = 19595 / 2**16, 38470 / 2**16, 7471 / 2**16  # ITU-R 601 as Pillow rounds it
CONTRAST, SATURATION, HUE, LEFT_OUT = 1, 2, 3, 4  # 0 is brightness
NEUTRAL = np.array([1, 1, 1, 0], np.float32)
CACHED = 2**16  # pixels whose planes stay in the second-level cache of a CPU
FAR = 2048.0  # more than 6 * 255, the largest difference of what hue_ compares

Planes = Sequence[Tensor]


def all_rows(x: Tensor) -> bool:
    """Whether to compute every row, because choosing some of them would cost more."""
    return x.device.type != "cpu" or torch.compiler.is_compiling()


def luma(red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    """Pillow's mode L. Exact: all sums are multiples of 2^-16 below 256."""
    return (red * RED).add_(green, alpha=GREEN).add_(blue, alpha=BLUE).add_(0.5).floor_()


def mean(luma_NP: Tensor) -> Tensor:
    """[N, 1]: as Pillow rounds it for its contrast; exact up to 256 x 256 pixels."""
    return torch.floor(luma_NP.sum(1, keepdim=True) / luma_NP.shape[1] + 0.5)


def blend_(rgb: Planes, base: Tensor, amount: Tensor) -> list[Tensor]:
    """base + amount * (x - base), rounded down, within 0..255."""
    return [_clip_(x.sub_(base).mul_(amount).add_(base).floor_(), 255) for x in rgb]


def brightness_(rgb: Planes, amount: Tensor) -> list[Tensor]:
    return [_clip_(x.mul_(amount).floor_(), 255) for x in rgb]


def contrast_(rgb: Planes, amount: Tensor) -> list[Tensor]:
    return blend_(rgb, mean(luma(*rgb)), amount)


def saturation_(rgb: Planes, amount: Tensor) -> list[Tensor]:
    return blend_(rgb, luma(*rgb), amount)


def hue_(rgb: Planes, turn: Tensor) -> list[Tensor]:
    """Turns the hue by a part of its circle.

        v = max(r, g, b), d = v - min(r, g, b), s = d / v
        h = (g - b) / d         of six parts of the circle, where r is the largest,
            2 + (b - r) / d     where g is,
            4 + (r - g) / d     where b is
        r' = v - v s w(h, 3),  w(h, 3) = clamp(2 - |h - 3|, 0, 1)
        g' = v - v s w(h, 2),  w(h, c) = clamp(|h - c| - 1, 0, 1)
        b' = v - v s w(h, 4)

    Pillow keeps h and s in whole 1/255, and h wraps round at 256 after its turn.
    """
    v = _larger(_larger(rgb[0], rgb[1]), rgb[2])
    # 0 in the largest channel: its h is the largest of the three below
    r, g, b = (torch.sub(v, x, out=x) for x in rgb)
    d = _larger(_larger(r, g), b)
    some = _at_least_1(d)
    h = (b - g).sub_(r, alpha=FAR)
    h = _larger_(h, (r - b).add_(some, alpha=2).sub_(g, alpha=FAR))
    h = _larger_(h, (g - r).add_(some, alpha=4).sub_(b, alpha=FAR)).mul_(255 / 6).div_(some)
    h = h.add_(_clip_(h * -8, 1), alpha=255).floor_()  # h < 0 is at most -1/6
    h = h.add_(_steps(turn))
    h = h.sub_((h * (1 / 256)).floor_(), alpha=256).mul_(6 / 255)
    vs = d.mul_(255).div_(_at_least_1(v)).floor_().mul_(v).mul_(1 / 255)
    w = [(h - 3).abs_().neg_().add_(2), (h - 2).abs_().sub_(1), h.sub_(4).abs_().sub_(1)]
    w_vs = [_clip_(w_x, 1).mul_(vs) for w_x in w]
    return [torch.sub(v, change, out=x).round_() for x, change in zip(rgb, w_vs)]


def _steps(turn: Tensor) -> Tensor:
    """In 1/255 of the circle, 0..255, as torchvision rounds it."""
    steps = torch.trunc(turn * 255)
    return steps + 256 * (steps < 0)


def _larger(a: Tensor, b: Tensor) -> Tensor:
    """max(a, b). Inductor's minimum and maximum see to NaN, with four times the instructions."""
    return a + (b - a).relu() if torch.compiler.is_compiling() else torch.maximum(a, b)


def _larger_(a: Tensor, b: Tensor) -> Tensor:
    return _larger(a, b) if torch.compiler.is_compiling() else torch.maximum(a, b, out=a)


def _at_least_1(x: Tensor) -> Tensor:
    return 1 + (x - 1).relu() if torch.compiler.is_compiling() else x.clamp(min=1)


def _clip_(x: Tensor, top: float) -> Tensor:
    """Within 0..top, of whole numbers; where top is 1 the rest may be off by a rounding."""
    return top - (top - x.relu()).relu() if torch.compiler.is_compiling() else x.clamp_(0, top)


OPERATIONS = (brightness_, contrast_, saturation_, hue_)


def jitter_all(x_NCHW: Tensor, p_N8: Tensor) -> Tensor:
    """Hue once, the others before it or after it: neutral where they stand on the other side.

    order c h s b:  c 1 1, hue, 1 s b
    """
    amounts_N4, order_N4 = p_N8[:, :4], p_N8[:, 4:]
    before_N3 = (order_N4 == HUE).cumsum(1)[:, :3] == 0
    others_N3 = torch.where(before_N3, order_N4[:, :3], order_N4[:, 1:])
    a_N3 = amounts_N4.gather(1, others_N3.long())
    rgb = [plane.clone() for plane in x_NCHW.flatten(2).unbind(1)]
    rgb = _others_(rgb, others_N3, a_N3.where(before_N3, 1))
    turn_N1 = amounts_N4[:, HUE:]
    turned = hue_([plane.clone() for plane in rgb], turn_N1)
    on_N1 = (turn_N1 != 0).to(x_NCHW.dtype)
    rgb = [x.add_(t.sub_(x).mul_(on_N1)) for x, t in zip(rgb, turned)]
    rgb = _others_(rgb, others_N3, a_N3.where(~before_N3, 1))
    return torch.stack(list(rgb), 1).view_as(x_NCHW)


def _others_(rgb: Planes, others_N3: Tensor, a_N3: Tensor) -> Planes:
    contrast_N3 = (others_N3 == CONTRAST).to(a_N3.dtype)
    saturation_N3 = (others_N3 == SATURATION).to(a_N3.dtype)
    for k in range(3):
        column = slice(k, k + 1)
        l_NP = luma(*rgb)
        base_NP = contrast_N3[:, column] * mean(l_NP) + saturation_N3[:, column] * l_NP
        rgb = blend_(rgb, base_NP, a_N3[:, column])
    return rgb


def jitter_sorted(x_NCHW: Tensor, p_N8: Tensor) -> Tensor:
    """Rows sorted by their orders: what comes k-th is the same for many rows behind one another."""
    p = p_N8.numpy()
    order_N4 = p[:, 4:].astype(int)
    amounts_N4 = np.take_along_axis(p, order_N4, 1)
    order_N4[amounts_N4 == NEUTRAL[order_N4]] = LEFT_OUT
    key_N = order_N4 @ (125, 25, 5, 1)
    rows = np.argsort(key_N, kind="stable")
    y_NCP = x_NCHW.index_select(0, torch.from_numpy(rows)).flatten(2)
    size = max(1, CACHED // y_NCP.shape[2])
    for k in range(4):
        a_N1 = torch.from_numpy(amounts_N4[rows, k, None])
        for first, last in _runs(key_N[rows] // 5 ** (3 - k), size):
            operation = order_N4[rows[first], k]
            if operation != LEFT_OUT:
                OPERATIONS[operation](y_NCP[first:last].unbind(1), a_N1[first:last])
    return y_NCP.index_select(0, torch.from_numpy(np.argsort(rows))).view_as(x_NCHW)


def _runs(key_N: np.ndarray, size: int) -> Iterator[tuple[int, int]]:
    """(first, last) of the runs of equal numbers, cut to `size`."""
    cuts = [0, *(np.flatnonzero(np.diff(key_N)) + 1).tolist(), len(key_N)]
    for first, last in itertools.pairwise(cuts):
        for start in range(first, last, size):
            yield start, min(start + size, last)
