"""What goes wrong with photographs, for tests of robustness."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from vissl_lite import TRANSFORMS
from vissl_lite.data.transform import Transform
from vissl_lite.transforms._common import check_at_least
from vissl_lite.transforms._corruptions import SEVERITIES, Kind, corrupt

SEEDS = 2**32


@TRANSFORMS.register("corruption")
class Corruption(Transform):
    """One of the fifteen corruptions of ImageNet-C and CIFAR-10-C, at a severity of 1 to 5.

    Hendrycks and Dietterich 2019 (arXiv 1903.12261). Strengths are those of their programs: of
    ImageNet-C for short sides from 64 pixels on, of CIFAR-10-C below. Lengths grow with the short
    side, so that they are theirs at 224 and 32 pixels. It comes last, when the image has its final
    size. Where this differs from their data:

    - `frost` is computed, not photographed: compare it with itself only.
    - Results are rounded, not cut off, and not saved as JPEG afterwards, as ImageNet-C's are.
    - `elastic_transform` interpolates once instead of twice, and is a bit sharper.

    Args:
        kind: noise: gaussian_noise, shot_noise, impulse_noise; blur: defocus_blur, glass_blur,
            motion_blur, zoom_blur; weather: snow, frost, fog, brightness; digital: contrast,
            elastic_transform, pixelate, jpeg_compression.
        severity: 0 leaves the image as it is.

    Raises:
        ConfigError: a severity that is not from 0 to 5.
    """

    draws = 1

    def __init__(self, kind: Kind = "gaussian_noise", severity: int = 3):
        check_at_least(severity, "corruption.severity", high=SEVERITIES)
        self.kind, self.severity = kind, severity

    def parameters(self, u_ND: np.ndarray, width: int, height: int) -> np.ndarray:
        """[seed of everything random]"""
        return np.floor(u_ND * SEEDS)

    def on_image(self, image: Image.Image, p: Sequence[float]) -> Image.Image:
        if not self.severity:
            return image
        rng = np.random.Generator(np.random.Philox(key=int(p[0])))
        return Image.fromarray(corrupt(np.asarray(image), self.kind, self.severity, rng))
