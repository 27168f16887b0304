"""Random changes of colour, with grey the strongest augmentation of contrastive learning."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from vissl_lite import TRANSFORMS
from vissl_lite.data import colours
from vissl_lite.transforms import _pixels
from vissl_lite.transforms._common import F, check_at_least, check_probability
from vissl_lite.transforms._pixels import NEUTRAL

OPERATIONS = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)


@TRANSFORMS.register("color_jitter")
class ColorJitter(_pixels.PixelTransform):
    """Random brightness, contrast, saturation and hue, in random order, with probability p.

    Factors of the first three are uniform in [max(0, 1 - strength), 1 + strength]; the hue is
    turned by U(-hue, hue) of the colour circle, in HSV. A strength of 0 leaves its operation out.
    The defaults are SimCLR's at strength 1 (Chen et al. 2020, arXiv 2002.05709, appendix A).
    """

    draws = 9
    neutral = NEUTRAL

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
        self.low, self.high = np.array([*factors, (-hue, hue)]).T

    def parameters(self, u_ND: np.ndarray, width: int, height: int) -> np.ndarray:
        """[brightness, contrast, saturation, hue, and which of these 0..3 is done 1st, 2nd, ...]

        A factor of 1 and a hue of 0 leave their operation out.
        """
        apply_N1, amounts_N4, keys_N4 = u_ND[:, :1], u_ND[:, 1:5], u_ND[:, 5:]
        on_N4 = (apply_N1 < self.p) & (self.low < self.high)
        amounts_N4 = np.where(on_N4, self.low + (self.high - self.low) * amounts_N4, NEUTRAL)
        order_N4 = np.argsort(keys_N4, axis=1, kind="stable")  # random keys give a random order
        return np.concatenate([amounts_N4, order_N4], 1)

    def on_image(self, image: Image.Image, p: Sequence[float]) -> Image.Image:
        for k in map(int, p[4:]):
            if p[k] != NEUTRAL[k]:
                image = OPERATIONS[k](image, p[k])
        return image

    def by_opencv(
        self, pixels: np.ndarray, p: Sequence[float], out: np.ndarray | None
    ) -> np.ndarray:
        return _pixels.jitter(pixels, p, out)

    def on_batch(self, x_NCHW: Tensor, p_NP: Tensor) -> Tensor:
        return colours.jitter(x_NCHW, p_NP)
