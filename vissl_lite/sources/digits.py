"""Handwritten digits that ship with scikit-learn: the default, which needs no download."""

import functools
from typing import Literal

import numpy as np

from vissl_lite import SOURCES
from vissl_lite.data.batch import Sample
from vissl_lite.sources._source import Source

Split = Literal["train", "test", "all"]


@SOURCES.register("digits")
class Digits(Source):
    """1,797 real handwritten digits of 8x8 pixels, ten classes; ships with scikit-learn.

    Images are uint8 arrays [8, 8]; the 17 grey levels 0-16 become round(255 / 16 * level).

    Args:
        split: "train" (80 % of each class), "test" (the others), or "all".
        seed: of the split; the default is what recipes and published numbers use.

    Source: UCI optical recognition of handwritten digits, test part (Alpaydin & Kaynak 1998).
    """

    num_classes = 10

    def __init__(self, split: Split = "train", seed: int = 0):
        self.split = split
        self.images_NHW, self.labels_N = load_digits(split, seed)
        self.classes = [str(digit) for digit in range(10)]

    def __len__(self) -> int:
        return len(self.labels_N)

    def sample(self, index: int) -> Sample:
        label = int(self.labels_N[index])
        return Sample(self.images_NHW[index], label, name=f"digits/{self.split}/{index}")

    def images(self) -> np.ndarray:
        return self.images_NHW

    def all_labels(self) -> np.ndarray:
        return self.labels_N

    def described(self) -> str:
        return f"{self.split}, "


@functools.lru_cache(maxsize=4)
def load_digits(split: Split, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 8, 8] uint8 and labels [N] int64 of one part, in scikit-learn's order."""
    from sklearn import datasets  # takes a second to import

    levels_ND, labels_N = datasets.load_digits(return_X_y=True)
    images_NHW = np.rint(levels_ND * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    if split == "all":
        return images_NHW, labels_N
    chosen_N = in_test(labels_N, seed) == (split == "test")
    return images_NHW[chosen_N], labels_N[chosen_N]


def in_test(labels_N: np.ndarray, seed: int, share: float = 0.2) -> np.ndarray:
    """[N] bool: a random `share` of each class, rounded."""
    rng, test_N = np.random.default_rng(seed), np.zeros(len(labels_N), bool)
    for label in np.unique(labels_N):
        members = rng.permutation(np.flatnonzero(labels_N == label))
        test_N[members[: round(share * len(members))]] = True
    return test_N
