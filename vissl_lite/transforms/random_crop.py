"""The crop of small images: shifted, not resized."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from vissl_lite import TRANSFORMS
from vissl_lite.data.transform import Transform
from vissl_lite.errors import ConfigError
from vissl_lite.transforms._common import F, check_at_least
from vissl_lite.transforms._cut import Mode, cut, cut_batch


@TRANSFORMS.register("random_crop")
class RandomCrop(Transform):
    """Pads on all sides and takes a square of the size of the view at a random place.

    The default padding is that of CIFAR (He et al. 2016, arXiv 1512.03385, section 4.2).

    Args:
        padding: pixels added on each side.
        mode: what they show: black, or the image mirrored or repeated at its edge.
        size: pixels per side of the result.

    Raises:
        ConfigError: from `parameters`, when the padded image is smaller than the view.
    """

    draws = 2
    shape = "view"

    def __init__(
        self,
        padding: int = 4,
        mode: Mode = "constant",
        *,
        size: int,
    ):
        check_at_least(padding, "random_crop.padding")
        self.padding, self.size = padding, size
        self.mode: Mode = mode

    def parameters(self, u_ND: np.ndarray, width: int, height: int) -> np.ndarray:
        """[left, top, right, bottom] in the image before padding."""
        width, height = width + 2 * self.padding, height + 2 * self.padding
        if min(width, height) < self.size:
            raise ConfigError(
                f"random_crop: {width}x{height} pixels with padding have no room for"
                f" a view of {self.size}; put resize before it"
            )
        room_2 = np.array([width, height]) - self.size + 1
        first_N2 = np.floor(u_ND[:, ::-1] * room_2) - self.padding  # the first number is for top
        return np.concatenate([first_N2, first_N2 + self.size], 1)

    def on_image(self, image: Image.Image, p: Sequence[float]) -> Image.Image:
        left, top, right, bottom = (int(edge) + self.padding for edge in p)
        image = F.pad(image, [self.padding], padding_mode=self.mode)
        return image.crop((left, top, right, bottom))

    def on_array(
        self, pixels: np.ndarray, p: Sequence[float], out: np.ndarray | None = None
    ) -> np.ndarray:
        return cut(pixels, p, self.mode, out)

    def on_batch(self, x_NCHW: Tensor, p_NP: Tensor) -> Tensor:
        return cut_batch(x_NCHW, p_NP, self.size, self.mode)
