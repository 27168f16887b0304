"""What a transform did to one image, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from vissl_lite import TRANSFORMS
from vissl_lite.data.transform import Transform
from vissl_lite.data.views import AnyTransform, Draws, Views

Words = Callable[[Any, np.ndarray, Sequence[float], tuple[int, int]], str]


def drawn(views: Views, draws: Draws, image: Image.Image, g: int, v: int, b: int) -> list[str]:
    """A sentence for each transform of crop v of group g, as `Views.crop` applies them."""
    said = []
    for t, transform in enumerate(views.groups[g].transforms):
        if isinstance(transform, Transform):
            u_1D = draws.uniforms(g, t)[v, b : b + 1]
            p = transform.parameters(u_1D, *image.size)[0].tolist()
            said.append(in_words(transform, u_1D, p, image.size))
            image = transform.on_image(image, p)
        else:
            said.append(f"{name_of(transform)}: draws its own numbers")
            image = transform(image, draws.generator(g, t, v, b))
    return said


def in_words(
    transform: Transform, u_1D: np.ndarray, p: Sequence[float], size: tuple[int, int]
) -> str:
    """`random_horizontal_flip: flipped`; of a transform that is not ours, its numbers.

    Args:
        u_1D: the uniforms that it took.
        p: what `parameters` made of them, for an image of this size (width, height).
    """
    name = name_of(transform)
    own = OURS.get(name)
    numbers = ", ".join(f"{value:.3g}" for value in p) or "nothing drawn"
    return f"{name}: {own(transform, u_1D, p, size) if own else numbers}"


def name_of(transform: AnyTransform) -> str:
    """In the registry."""
    for name, entry in TRANSFORMS.items():
        if entry is type(transform):
            return name
    return type(transform).__name__


def _box(t: Any, u: np.ndarray, p: Sequence[float], size: tuple[int, int]) -> str:
    left, top, right, bottom = p[:4]
    area = (right - left) * (bottom - top) / (size[0] * size[1])
    return f"{right - left:.0f} x {bottom - top:.0f} pixels at ({left:.0f}, {top:.0f}), {area:.0%}"


def _erased(t: Any, u: np.ndarray, p: Sequence[float], size: tuple[int, int]) -> str:
    return _box(t, u, p, size) if p[2] > p[0] else "nothing"


def _jitter(t: Any, u: np.ndarray, p: Sequence[float], size: tuple[int, int]) -> str:
    names = ("brightness", "contrast", "saturation")
    said = [f"{name} x {f:.2f}" for name, f in zip(names, p) if f != 1]
    said += [f"hue {p[3]:+.3f}"] if p[3] else []
    return ", ".join(said) or "nothing"


def _affine(t: Any, u: np.ndarray, p: Sequence[float], size: tuple[int, int]) -> str:
    angle, right, down, shear, factor = t.amounts(u, *size)[0].tolist()
    return (
        f"turned {angle:+.1f}°, moved {round(right):+d} and {round(down):+d} pixels,"
        f" sheared {shear:+.1f}°, x {factor:.2f}"
    )


def _rand_augment(t: Any, u: np.ndarray, p: Sequence[float], size: tuple[int, int]) -> str:
    from vissl_lite.transforms.rand_augment import OPERATIONS, UNSIGNED

    names = [list(OPERATIONS)[int(i)] for i in p[::2]]
    signs = ["" if n in UNSIGNED else "+" if s > 0 else "-" for n, s in zip(names, p[1::2])]
    return ", ".join(f"{name}{sign and ' ' + sign}" for name, sign in zip(names, signs))


OURS: dict[str, Words] = {
    "center_crop": _box,
    "random_crop": _box,
    "random_resized_crop": _box,
    "random_erasing": _erased,
    "resize": lambda t, u, p, size: f"to {p[0]:.0f} x {p[1]:.0f} pixels",
    "color_jitter": _jitter,
    "gaussian_blur": lambda t, u, p, size: f"sigma {p[0]:.2f} pixels" if p[0] else "nothing",
    "random_grayscale": lambda t, u, p, size: "grey" if p[0] else "nothing",
    "random_horizontal_flip": lambda t, u, p, size: "flipped" if p[0] else "nothing",
    "posterize": lambda t, u, p, size: f"to {p[0]:.0f} bits" if p[0] < 8 else "nothing",
    "solarize": lambda t, u, p, size: f"above {p[0]:.0f}" if p[0] < 256 else "nothing",
    "random_affine": _affine,
    "random_rotation": lambda t, u, p, size: f"turned {t.degrees * (2 * u[0, 0] - 1):+.1f}°",
    "rand_augment": _rand_augment,
}
