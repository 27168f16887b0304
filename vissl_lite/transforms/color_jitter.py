"""Random changes of colour, with grey the strongest augmentation of contrastive learning."""

import numpy as np
from PIL import Image

from vissl_lite import TRANSFORMS
from vissl_lite.transforms._common import F, check_at_least, check_probability

OPERATIONS = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)


@TRANSFORMS.register("color_jitter")
class ColorJitter:
    """Random brightness, contrast, saturation and hue, in random order, with probability p.

    Factors of the first three are uniform in [max(0, 1 - strength), 1 + strength]; the hue is
    turned by U(-hue, hue) of the colour circle, in HSV. A strength of 0 leaves its operation out.
    The defaults are SimCLR's at strength 1 (Chen et al. 2020, arXiv 2002.05709, appendix A).
    """

    def __init__(
        self,
        brightness: float = 0.8,
        contrast: float = 0.8,
        saturation: float = 0.8,
        hue: float = 0.2,
        p: float = 0.8,
    ):
        check_at_least(brightness, "color_jitter.brightness")
        check_at_least(contrast, "color_jitter.contrast")
        check_at_least(saturation, "color_jitter.saturation")
        check_at_least(hue, "color_jitter.hue", high=0.5)
        check_probability(p, "color_jitter.p")
        self.p = p
        factors = [(max(0.0, 1 - s), 1 + s) for s in (brightness, contrast, saturation)]
        self.ranges = [*factors, (-hue, hue)]

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        apply, *uniforms = rng.random(9).tolist()
        if apply >= self.p:
            return image
        amounts, keys = uniforms[:4], uniforms[4:]
        for k in sorted(range(4), key=keys.__getitem__):  # random keys give a random order
            low, high = self.ranges[k]
            if low < high:
                image = OPERATIONS[k](image, low + (high - low) * amounts[k])
        return image
