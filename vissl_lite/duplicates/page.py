"""The pairs as a page to look at: those above the threshold, around it, and below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vissl_lite import SOURCES
from vissl_lite.data.decode import BrokenImage, decode
from vissl_lite.duplicates.find import BINS, Pairs
from vissl_lite.errors import ConfigError
from vissl_lite.report.charts import Series, chart
from vissl_lite.report.page import Html, details, page, section, tag
from vissl_lite.report.pictures import picture, tiles

SIDE = 110
SHOWN = 60  # pairs of a section


class Images:
    """Pixels of the images of the sources that features were made of; opened when needed."""

    def __init__(self, metas: Sequence[dict[str, Any]]):
        self.configs = [meta["source"] for meta in metas]
        self.sources: dict[int, Any] = {}

    def picture(self, s: int, index: int, name: str) -> Html:
        try:
            sample = self._source(s)[index]
            pixels = np.asarray(decode(sample.image, sample.name))
        except (BrokenImage, ConfigError, IndexError):  # or the source has gone, or shrunk
            return tag("span", f"{name}: cannot be read")
        return picture(pixels, name, SIDE)

    def _source(self, s: int) -> Any:
        if s not in self.sources:
            self.sources[s] = SOURCES.build(self.configs[s], "duplicates")
        return self.sources[s]


def write_page(
    pairs: Pairs,
    names: list[tuple[str, str]],
    threshold: float,
    chosen_by: str,
    metas: Sequence[dict[str, Any]],
    numbers: Mapping[int, int],
) -> str:
    """The page.

    Args:
        names: of the training and the test image of each pair.
        metas: of the features: training first, then the test sets.
        numbers: of column "page" of sample.tsv -> pair.
    """
    images = Images(metas)
    above = int((pairs.cosine >= threshold).sum())
    lead = (
        f"{above:,} of {pairs.compared:,} training images have a cosine of {threshold:.4f} or more"
        f" to a test image ({chosen_by})."
    )

    def shown(rows: Mapping[int, int], label: str = "") -> Html:
        found = [_pair(pairs, names, images, p, f"{label}{i}") for i, p in rows.items()]
        return tag("div", found, class_="charts")

    near = range(max(0, above - SHOWN // 2), min(len(pairs.cosine), above + SHOWN // 2))
    parts = [
        section("All cosines", tag("p", SAID), _histogram(pairs)),
        section("Most alike", shown(dict(enumerate(range(min(above, SHOWN)), 1)))),
        section("Around the threshold", tag("p", AROUND), shown(dict(enumerate(near, 1)))),
        section("The sample", tag("p", SAMPLE), details("Show", shown(numbers, "pair "))),
    ]
    return page("Images that are in the test set too", parts, lead)


SAID = "The nearest test image of every training image, by cosine; the scale of counts is log."
AROUND = "Pairs just above and just below it: are those above the same image, those below not?"
SAMPLE = "The pairs of sample.tsv, by their number in its column 'page'."


def _histogram(pairs: Pairs) -> Html:
    middle = (np.arange(BINS) + 0.5) / BINS
    there = pairs.counts > 0
    line = Series("images", middle[there].tolist(), pairs.counts[there].tolist())
    return chart("Training images", [line], "cosine", log=True)


def _pair(pairs: Pairs, names: list[tuple[str, str]], images: Images, p: int, label: str) -> Html:
    """Training image, test image, and what they are called."""
    train, test = names[p]
    left = images.picture(0, int(pairs.train[p]), train)
    right = images.picture(1 + int(pairs.split[p]), int(pairs.test[p]), test)
    head = tag("strong", f"{label}: {pairs.cosine[p]:.4f}")
    below = tag("figcaption", train, tag("br"), test)
    return tag("figure", head, tiles([(left, None), (right, None)]), below)
