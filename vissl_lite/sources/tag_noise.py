"""Wrong hashtags on purpose. Shape suffixes: n images, T tags of them, V kinds of tags."""

from typing import Annotated, Any

import numpy as np

from vissl_lite import SOURCES
from vissl_lite.data.batch import Sample
from vissl_lite.data.random import generator, ragged
from vissl_lite.errors import ConfigError
from vissl_lite.sources._source import Source, ask

STREAM = 18  # of `generator`
CHUNK = 1 << 18  # images whose tags are replaced together


@SOURCES.register("tag_noise")
class TagNoise(Source):
    """A source some of whose tags are replaced by random ones: how robust is a training?

    Each tag is replaced, with probability `share`, by one drawn from the tags of all images, as
    frequent there as in the source (Mahajan et al. 2018, arXiv 1805.00932, section 3.1.3: a
    quarter of them cost little). What happens to an image's tags depends on the seed and its place
    only, so an image keeps its wrong tags over all epochs. Tags that come out twice count once.
    Memory: 8 bytes per kind of tag; all tags asked for at once are a copy.

    Args:
        source: config of a source whose tags are known before its images are opened.
        share: probability that a tag is replaced, in [0, 1].
        seed: of the choice.

    Raises:
        ConfigError: `share` out of range, or a source that does not tell its tags.
    """

    def __init__(self, source: Annotated[Any, SOURCES], share: float = 0.25, seed: int = 0):
        if not 0 <= share <= 1:
            raise ConfigError(f"tag_noise.share: {share:g} is no probability; give 0 to 1")
        self.source, self.share, self.seed = SOURCES.build(source, "tag_noise.source"), share, seed
        tags = ask(self.source, "all_tags")
        if tags is None:
            raise ConfigError(
                f"tag_noise.source: {self.source!r} does not tell its tags at once; take a source"
                " with tags that are known before its images are opened"
            )
        self.num_classes, self.classes = self.source.num_classes, self.source.classes
        self.cumulative_V = np.cumsum(np.bincount(tags[0], minlength=self.num_classes or 0))

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, index: int) -> Sample:
        sample = self.source[index]
        if sample.tags is not None:
            sample.tags = self._noisy(index, np.asarray(sample.tags, np.int64)).tolist()
        return sample

    def images(self) -> np.ndarray | None:
        return ask(self.source, "images")

    def all_tags(self) -> tuple[np.ndarray, np.ndarray]:
        values, offsets = self.source.all_tags()
        chunks = [
            self._all_noisy(start, values, np.asarray(offsets[start : start + CHUNK + 1]))
            for start in range(0, len(self), CHUNK)
        ]
        found, lengths = (np.concatenate(parts) for parts in zip(*chunks))
        return found, np.concatenate([[0], np.cumsum(lengths)])

    def _noisy(self, index: int, tag_T: np.ndarray) -> np.ndarray:
        u_2T = generator(self.seed, 0, index, 0, STREAM).random((2, len(tag_T)))
        return np.unique(self._replaced(tag_T, *u_2T))

    def _all_noisy(
        self, start: int, values: np.ndarray, bounds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tags of the images from `start` on, one behind the other, and how many each has.

        The numbers are those of `_noisy`: of an image with k tags, k that say whether, k that say
        by which.
        """
        count_n = np.diff(bounds)
        u = ragged(self.seed, start + np.arange(len(count_n)), 2 * count_n, STREAM)
        row_T = np.repeat(np.arange(len(count_n)), count_n)
        at_T = np.arange(len(row_T)) + (bounds - bounds[0])[row_T]
        tag_T = self._replaced(values[bounds[0] : bounds[-1]], u[at_T], u[at_T + count_n[row_T]])
        kinds = len(self.cumulative_V)
        row_T, tag_T = np.divmod(np.unique(row_T * kinds + tag_T), kinds)
        return tag_T, np.bincount(row_T, minlength=len(count_n))

    def _replaced(self, tag_T: np.ndarray, u_T: np.ndarray, where_T: np.ndarray) -> np.ndarray:
        drawn_T = np.searchsorted(self.cumulative_V, where_T * self.cumulative_V[-1], side="right")
        return np.where(u_T < self.share, drawn_T, tag_T)

    def described(self) -> str:
        return f"{self.share:.0%} of the tags of {self.source!r} replaced, "
