"""Which image how often: repeat factors from tag frequencies, and an order that keeps to them.

Shape suffixes: N images, T tags of all images, V kinds of tags, K blocks of S images, B positions.
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from vissl_lite.data.random import generator, mix, permute
from vissl_lite.data.sampler import Order

Balance = Literal["none", "sqrt", "uniform"]
POWER = {"none": 0.0, "sqrt": 0.5, "uniform": 1.0}

BLOCK = 64  # images whose factors are read together
CHUNK = 1 << 20  # images that are looked at together while the factors are made
STREAM = 17  # of `generator`


def tag_counts(values_T: np.ndarray, num_tags: int) -> np.ndarray:
    """[V], int64: images that have each tag. An image has a tag at most once."""
    count_V = np.zeros(num_tags, np.int64)
    for start in range(0, len(values_T), CHUNK):
        count_V += np.bincount(values_T[start : start + CHUNK], minlength=num_tags)
    return count_V


def tag_factors(
    count_V: np.ndarray, images: int, balance: Balance, threshold: float, smallest: float
) -> np.ndarray:
    """r(h) = max(smallest, phi(t / f(h))) with f(h) = count / images, [V], float64.

    phi is the square root, the identity, or 1 (Mahajan et al. 2018, arXiv 1805.00932, section 2.2;
    the form with a threshold is that of LVIS, Gupta et al. 2019, arXiv 1908.03195, appendix B).
    """
    f_V = np.maximum(count_V, 1) / images
    return np.maximum(smallest, (threshold / f_V) ** POWER[balance])


def image_factors(
    values_T: np.ndarray, offsets: np.ndarray, factor_V: np.ndarray, untagged: float
) -> Iterator[np.ndarray]:
    """r(I) = max over the tags h of I of r(h), `untagged` without one; float32, chunk by chunk."""
    images = len(offsets) - 1
    for start in range(0, images, CHUNK):
        bounds = np.asarray(offsets[start : start + CHUNK + 1])
        r_T = factor_V[values_T[bounds[0] : bounds[-1]]].astype(np.float32)
        r_N = np.full(len(bounds) - 1, untagged, np.float32)
        tagged = np.diff(bounds) > 0
        if len(r_T):
            r_N[tagged] = np.maximum.reduceat(r_T, (bounds[:-1] - bounds[0])[tagged])
        yield r_N


class BalancedOrder(Order):
    """Position in an epoch -> index in the source; image i is there floor(r_i) or ceil(r_i) times.

    Systematic sampling (Madow 1949): the images lie behind one another as intervals of length
    r_i, and an epoch takes the points u, u + 1, u + 2, ... with one u in [0, 1) per epoch. So image
    i is drawn floor(r_i) times and once more with probability r_i - floor(r_i), and every epoch has
    the same length, the sum of the r_i. Within blocks of 64 the images change places from epoch to
    epoch, so that neighbours do not share their luck. Points come in a random order.

    Both columns stay on disk: a position costs a read of 256 bytes and a binary search.

    Args:
        factors: r, float32 [N], all positive; a column (`sources/_columns.py`).
        ends: r summed up to the end of each block, float64 [K]; a column.
        seed: of the run.
    """

    def __init__(self, factors: Any, ends: Any, seed: int):
        super().__init__([len(factors)], seed=seed)
        self.factors, self.ends_of_blocks = factors, ends
        self.total = float(ends[len(ends) - 1])
        self.size = max(1, round(self.total))
        self.scale = self.size / self.total  # a whole number of points

    def indices(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        u = generator(self.seed, epoch, 0, 0, STREAM).random()
        points_B = (permute(positions, self.size, self.seed, epoch) + u) / self.scale
        ends_K = self.ends_of_blocks.array()
        block_B = np.minimum(np.searchsorted(ends_K, points_B, side="right"), len(ends_K) - 1)
        blocks, place_B = np.unique(block_B, return_inverse=True)
        starts = np.where(blocks > 0, ends_K[blocks - 1], 0.0)
        images_KS, ends_KS = self._blocks(epoch, blocks, starts)
        passed_B = (ends_KS[place_B] <= points_B[:, None]).sum(1)
        in_block_B = np.minimum(passed_B, self._sizes(blocks)[place_B] - 1)
        return images_KS[place_B, in_block_B]

    def _blocks(
        self, epoch: int, blocks: np.ndarray, starts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The images of these blocks in this epoch's order, and the ends of their intervals."""
        key = generator(self.seed, epoch, 1, 0, STREAM).integers(2**63, dtype=np.uint64)
        index_KS = blocks[:, None] * BLOCK + np.arange(BLOCK)
        r_KS = np.zeros(index_KS.shape)
        for row, block in zip(r_KS, blocks.tolist()):
            read = self.factors.read(block * BLOCK, min((block + 1) * BLOCK, len(self.factors)))
            row[: len(read)] = read
        hash_KS = np.where(r_KS > 0, mix(index_KS.astype(np.uint64), key), np.uint64(2**63))
        order_KS = np.argsort(hash_KS, axis=1, kind="stable")  # what is no image comes last
        ends_KS = starts[:, None] + np.cumsum(np.take_along_axis(r_KS, order_KS, 1), 1)
        return np.take_along_axis(index_KS, order_KS, 1), ends_KS

    def _sizes(self, blocks: np.ndarray) -> np.ndarray:
        return np.minimum((blocks + 1) * BLOCK, len(self.factors)) - blocks * BLOCK
