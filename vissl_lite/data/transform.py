"""What a transform is: one meaning in up to three forms, all driven by the same numbers.

Shape suffixes: N images, D uniforms, P parameters, H, W, C of an image.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image


class Transform:
    """Base class of the transforms here; a third party's needs only `__call__(image, rng)`.

        u ~ U[0, 1)^draws           = f(seed, epoch, position, view, place in the list)
        p = parameters(u, W, H)     what happens to this image, in numbers
        on_image(image, p)          Pillow: the reference, and the default of the next
        on_array(pixels_HWC, p)     uint8 array, in a worker of the fast back end
        on_batch(x_NCHW, p_NP)      float tensor of values 0..255, on the device; not all have it

    Attributes:
        draws: how many uniforms one call takes; may depend on the settings.
        shape: size of the result: "kept"; "view", the `size` that the transform was built with; or
            "free", anything else.
        cuts: the first four parameters are the box (left, top, right, bottom) of the image that the
            result is made of; nothing outside it counts.
    """

    draws: int = 0
    shape: Literal["kept", "view", "free"] = "kept"
    cuts: bool = False

    def parameters(self, u_ND: np.ndarray, width: int, height: int) -> np.ndarray:
        """[N, P] float64: one row of numbers for each of N images of width x height pixels."""
        return np.empty((len(u_ND), 0))

    def on_image(self, image: Image.Image, p: Sequence[float]) -> Image.Image:
        """The reference; `image` is RGB and not changed."""
        raise NotImplementedError

    def on_array(
        self, pixels: np.ndarray, p: Sequence[float], out: np.ndarray | None = None
    ) -> np.ndarray:
        """The same on a uint8 array [H, W, 3]; within the bound that its test states.

        Args:
            pixels: not changed, unless it is `out`.
            out: where the result goes, if given; of the result's size, maybe `pixels` itself.
        """
        return placed(np.asarray(self.on_image(Image.fromarray(pixels), p)), out)

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        u_1D = rng.random((1, self.draws))
        return self.on_image(image, self.parameters(u_1D, *image.size)[0].tolist())


def placed(result: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """`result`, in `out` if there is one."""
    if out is None or out is result:
        return result
    out[...] = result
    return out


def has_batch_form(transform: Any) -> bool:
    return hasattr(transform, "on_batch")
