"""Images made of nothing, for benchmarks and dry runs."""

from typing import Annotated, Literal

import numpy as np

from vissl_lite import SOURCES
from vissl_lite.data.batch import Sample
from vissl_lite.data.random import generator
from vissl_lite.schema import at_least
from vissl_lite.sources._source import Source

STREAM = 12  # of `generator`


@SOURCES.register("synthetic")
class Synthetic(Source):
    """Noise or grey images without meaning, for benchmarks and dry runs.

    Image i is a uint8 array [size, size, 3], a function of (seed, i); its label is i modulo
    num_classes.

    Args:
        n: number of images; the default is ImageNet-1k's training set over 1000.
        size: height and width in pixels.
        kind: "noise", each value uniform in 0..255, or "gray", all values 128.
        num_classes: number of classes.
        seed: of the noise.
    """

    def __init__(
        self,
        n: Annotated[int, at_least(1)] = 1281,
        size: Annotated[int, at_least(1)] = 224,
        kind: Literal["noise", "gray"] = "noise",
        num_classes: Annotated[int, at_least(1)] = 1000,
        seed: int = 0,
    ):
        self.n, self.size, self.kind, self.seed = n, size, kind, seed
        self.num_classes: int = num_classes

    def __len__(self) -> int:
        return self.n

    def sample(self, index: int) -> Sample:
        shape = (self.size, self.size, 3)
        if self.kind == "gray":
            image_HWC = np.full(shape, 128, np.uint8)
        else:
            rng = generator(self.seed, epoch=0, position=index, view=0, stream=STREAM)
            image_HWC = rng.integers(0, 256, shape, np.uint8)
        return Sample(image_HWC, index % self.num_classes, name=f"synthetic/{index}")

    def all_labels(self) -> np.ndarray:
        return np.arange(self.n) % self.num_classes

    def described(self) -> str:
        return f"{self.kind}, "
