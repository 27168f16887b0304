"""The middle of an image, the second half of the usual view for evaluation."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from vissl_lite import TRANSFORMS
from vissl_lite.data.transform import Transform
from vissl_lite.transforms._common import F
from vissl_lite.transforms._cut import cut


@TRANSFORMS.register("center_crop")
class CenterCrop(Transform):
    """The central square of the size of the view; a smaller image is padded with black.

    Args:
        size: pixels per side of the result.
    """

    shape = "view"

    def __init__(self, *, size: int):
        self.size = size

    def parameters(self, u_ND: np.ndarray, width: int, height: int) -> np.ndarray:
        """[left, top, right, bottom]"""
        left, top = (self._first(side) for side in (width, height))
        box = [left, top, left + self.size, top + self.size]
        return np.tile(np.array(box, float), (len(u_ND), 1))

    def on_image(self, image: Image.Image, p: Sequence[float]) -> Image.Image:
        return F.center_crop(image, [self.size, self.size])

    def on_array(
        self, pixels: np.ndarray, p: Sequence[float], out: np.ndarray | None = None
    ) -> np.ndarray:
        return cut(pixels, p, "constant", out)

    def on_batch(self, x_NCHW: Tensor, p_NP: Tensor) -> Tensor:
        height, width = x_NCHW.shape[2:]
        left, top = self._first(width), self._first(height)
        right, bottom = left + self.size - width, top + self.size - height
        return pad(x_NCHW, (-left, right, -top, bottom))  # negative padding cuts off

    def _first(self, side: int) -> int:
        """As torchvision rounds: halves to even where the image is cut, up where it is padded."""
        spare = side - self.size
        return round(spare / 2) if spare >= 0 else -(-spare // 2)
