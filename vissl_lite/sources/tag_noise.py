"""Wrong hashtags on purpose. Shape suffixes: T tags of all images, V kinds of tags."""

from typing import Annotated, Any

import numpy as np

from vissl_lite import SOURCES
from vissl_lite.data.batch import Sample
from vissl_lite.data.random import generator
from vissl_lite.errors import ConfigError
from vissl_lite.sources._source import Source, ask

STREAM = 18  # of `generator`


@SOURCES.register("tag_noise")
class TagNoise(Source):
    """A source some of whose tags are replaced by random ones: how robust is a training?

    Each tag is replaced, with probability `share`, by one drawn from the tags of all images, as
    frequent there as in the source (Mahajan et al. 2018, arXiv 1805.00932, section 3.1.3: a
    quarter of them cost little). What happens to an image's tags depends on the seed and its place
    only, so an image keeps its wrong tags over all epochs. Tags that come out twice count once.

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
        rows = [
            self._noisy(i, np.asarray(values[offsets[i] : offsets[i + 1]]))
            for i in range(len(self))
        ]
        return np.concatenate(rows), np.cumsum([0, *map(len, rows)])

    def _noisy(self, index: int, tag_T: np.ndarray) -> np.ndarray:
        replaced_T, where_T = generator(self.seed, 0, index, 0, STREAM).random((2, len(tag_T)))
        drawn_T = np.searchsorted(self.cumulative_V, where_T * self.cumulative_V[-1], side="right")
        return np.unique(np.where(replaced_T < self.share, drawn_T, tag_T))

    def described(self) -> str:
        return f"{self.share:.0%} of the tags of {self.source!r} replaced, "
