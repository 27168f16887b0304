"""The fifteen corruptions of ImageNet-C: which there are, and how strong each severity is.

Hendrycks and Dietterich 2019 (arXiv 1903.12261); the strengths are those of their published
programs. A corruption is a function (x_HWC, rng, scale, *strength) -> HWC of values in [0, 1];
`scale` is the image's short side over the side that the strengths are given for.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np

from vissl_lite.transforms import _corruptions_blur as blur
from vissl_lite.transforms import _corruptions_digital as digital
from vissl_lite.transforms import _corruptions_noise as noise
from vissl_lite.transforms import _corruptions_weather as weather

Kind = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
]
KINDS: tuple[str, ...] = get_args(Kind)
SEVERITIES = 5
SMALL = 64  # short sides below it take the strengths of CIFAR-10-C

FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    **{kind: getattr(noise, kind) for kind in KINDS[:3]},
    **{kind: getattr(blur, kind) for kind in KINDS[3:7]},
    **{kind: getattr(weather, kind) for kind in KINDS[7:11]},
    **{kind: getattr(digital, kind) for kind in KINDS[11:]},
}

# One row per severity; the parameters are those of the function, after `scale`.
IMAGENET: dict[str, tuple[Any, Any, Any, Any, Any]] = {
    "gaussian_noise": ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
    "shot_noise": ((60,), (25,), (12,), (5,), (3,)),
    "impulse_noise": ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "brightness": ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
    "contrast": ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
    "elastic_transform": (  # multiples of 244, as there, for images of 224
        (488, 170.8, 24.4),
        (488, 19.52, 48.8),
        (12.2, 2.44, 4.88),
        (17.08, 2.44, 4.88),
        (29.28, 2.44, 4.88),
    ),
    "pixelate": ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
    "jpeg_compression": ((25,), (18,), (15,), (10,), (7,)),
}
CIFAR: dict[str, tuple[Any, Any, Any, Any, Any]] = {
    "gaussian_noise": ((0.04,), (0.06,), (0.08,), (0.09,), (0.1,)),
    "shot_noise": ((500,), (250,), (100,), (75,), (50,)),
    "impulse_noise": ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)),
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    "brightness": ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,)),
    "contrast": ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
    "elastic_transform": (
        (0, 0, 2.56),
        (1.6, 6.4, 2.24),
        (2.56, 1.92, 1.92),
        (3.2, 1.28, 1.6),
        (3.2, 0.96, 0.96),
    ),
    "pixelate": ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
    "jpeg_compression": ((80,), (65,), (58,), (50,), (40,)),
}


def corrupt(
    pixels_HWC: np.ndarray, kind: str, severity: int, rng: np.random.Generator
) -> np.ndarray:
    """uint8 [H, W, 3], corrupted; severities from 1 to 5."""
    short = min(pixels_HWC.shape[:2])
    side, strengths = (32, CIFAR) if short < SMALL else (224, IMAGENET)
    strength = strengths[kind][severity - 1]
    x_HWC = FUNCTIONS[kind](pixels_HWC / 255, rng, short / side, *strength)
    return np.rint(x_HWC.clip(0, 1) * 255).astype(np.uint8)
