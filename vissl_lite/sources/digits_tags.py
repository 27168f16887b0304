"""Mosaics of handwritten digits with hashtags: a small stand-in for photographs from the web."""

import itertools
from typing import Annotated, Literal

import numpy as np

from vissl_lite import SOURCES
from vissl_lite.data.batch import Sample
from vissl_lite.data.random import generator
from vissl_lite.schema import at_least, between
from vissl_lite.sources._source import Source
from vissl_lite.sources.digits import Split, load_digits

# legend: V tags, W places for pairs in a mosaic, K pairs drawn for one image
PAIRS = list(itertools.combinations_with_replacement(range(10), 2))  # 55, sorted as their names are
STREAM = 11  # of `generator`


@SOURCES.register("digits_tags")
class DigitsTags(Source):
    """Mosaics of real digits with zero to eight hashtags each, 55 tags, Zipf-distributed.

        K ~ uniform{1..W}                    pairs in the image; the other places stay black
        v_1..v_K ~ p,  p_v = rank(v)^-a / sum over u of rank(u)^-a
        pair v = "3-7": a 3 and a 7 side by side, in either order, each a random digit of its class
        tags = {v_1..v_K}, or none at all with probability `untagged`

    So what a tag means can be seen, several tags describe one image, a few tags are common and most
    are rare, as hashtags are (Mahajan et al. 2018, arXiv 1805.00932). Image i is a function of
    (seed, split, i). The ranks of the tags are the same for every seed and split.

    Args:
        n: number of images.
        grid: digits along each side: images of 16x16 pixels with up to W = 2 pairs, or 32x32 with
            up to W = 8. uint8 arrays [8 grid, 8 grid].
        split: which digits the mosaics are made of; see `digits`.
        exponent: a of Zipf's law; 1 is about what words and hashtags follow, 0 makes all tags
            equally likely.
        untagged: probability that an image has no tags though it shows something.
        seed: of the mosaics.
    """

    num_classes = len(PAIRS)

    def __init__(
        self,
        n: Annotated[int, at_least(1)] = 10_000,
        grid: Literal[2, 4] = 2,
        split: Split = "train",
        exponent: float = 1.0,
        untagged: Annotated[float, between(0, 1)] = 0.02,
        seed: int = 0,
    ):
        self.n, self.grid, self.split, self.untagged, self.seed = n, grid, split, untagged, seed
        self.classes = [f"{a}-{b}" for a, b in PAIRS]
        self.frequency_V = zipf(exponent)
        images_NHW, labels_N = load_digits(split, seed=0)
        self._digits = [images_NHW[labels_N == digit] for digit in range(10)]

    def __len__(self) -> int:
        return self.n

    def sample(self, index: int) -> Sample:
        rng = self._generator(index)
        pairs_K, tags = self._draw(rng)
        mosaic = self._mosaic(pairs_K, rng)
        return Sample(mosaic, tags=tags.tolist(), name=f"digits_tags/{self.split}/{index}")

    def images(self) -> np.ndarray:
        return np.stack([self.sample(index).image for index in range(self.n)])

    def all_tags(self) -> tuple[np.ndarray, np.ndarray]:
        rows = [self._draw(self._generator(index))[1] for index in range(self.n)]
        return np.concatenate(rows), np.cumsum([0, *map(len, rows)])

    def _generator(self, index: int) -> np.random.Generator:
        part = ("train", "test", "all").index(self.split)
        return generator(self.seed, epoch=part, position=index, view=0, stream=STREAM)

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The pairs that an image shows, and its tags."""
        count = rng.integers(1, self.grid**2 // 2, endpoint=True)
        pairs_K = rng.choice(len(PAIRS), count, p=self.frequency_V)
        tagged = rng.random() >= self.untagged
        return pairs_K, np.unique(pairs_K) if tagged else np.empty(0, np.int64)

    def _mosaic(self, pairs_K: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Each pair in a place of its own, 8 x 16 pixels."""
        mosaic = np.zeros((8 * self.grid, 8 * self.grid), np.uint8)
        places_K = rng.choice(self.grid**2 // 2, len(pairs_K), replace=False)
        for pair, place in zip(pairs_K, places_K):
            row, column = divmod(int(place), self.grid // 2)
            digits = [rng.choice(self._digits[digit]) for digit in rng.permutation(PAIRS[pair])]
            mosaic[8 * row : 8 * row + 8, 16 * column : 16 * column + 16] = np.hstack(digits)
        return mosaic

    def described(self) -> str:
        return f"{self.split}, "


def zipf(exponent: float) -> np.ndarray:
    """Probability [V] of each tag: rank^-exponent, normalised; ranks are a fixed permutation."""
    rank_V = 1 + np.random.default_rng(0).permutation(len(PAIRS))
    weight_V = rank_V**-exponent
    return weight_V / weight_V.sum()
