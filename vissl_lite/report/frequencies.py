"""How often tags are drawn, of runs with `data.sampler.balance`. Suffixes: V tags, P of a chart."""

from __future__ import annotations

import numpy as np

from vissl_lite import SOURCES
from vissl_lite.config import Config
from vissl_lite.data.balance import tag_counts
from vissl_lite.data.sampler import Order
from vissl_lite.engine.order import balanced, classes_of
from vissl_lite.report.charts import Series, chart, short
from vissl_lite.report.page import Html, section, table, tag
from vissl_lite.report.runs import Run

POSITIONS, CHUNK = 1_000_000, 1 << 14  # of the first epoch that are looked at; at once
POINTS, SHOWN = 60, 5  # stretches of ranks of the chart; tags of each kind in the table
NAMES = ("in the source", "expected", "drawn")


def frequencies(run: Run) -> Html | None:
    """Shares of images that have each tag: of the source, expected of the sampler, and drawn.

    None for runs that draw every image once, or have no tag. Drawn is counted over the first epoch,
    at most a million of its positions. Labels count as tags.

    Raises:
        ConfigError: the images are not there, or do not tell their tags.
    """
    config = run.config
    if config.data.sampler.balance == "none" or config.train.epochs == 0:
        return None
    source = SOURCES.build(config.data.source, "data.source")
    values, offsets = classes_of(source, config.data.source["name"])
    order, expected_V, _ = balanced(config, source)
    if not len(values):
        return None
    natural_V = tag_counts(values, source.num_classes) / len(source)
    size = min(len(order), POSITIONS)
    drawn_V = drawn(order, size, values, offsets, source.num_classes) / size
    ranked = np.argsort(-natural_V, kind="stable")[: np.count_nonzero(natural_V)]
    shares = [share_V[ranked] for share_V in (natural_V, expected_V, drawn_V)]
    said = tag("p", _words(config, len(source), len(order), size, *shares[1:]))
    return section("Tag frequencies", said, _chart(shares), _table(source.classes, ranked, shares))


def drawn(
    order: Order, size: int, values: np.ndarray, offsets: np.ndarray, num_tags: int
) -> np.ndarray:
    """[V], int64: images with each tag among the first positions of the first epoch."""
    count_V = np.zeros(num_tags, np.int64)
    for start in range(0, size, CHUNK):
        index_B = order.indices(0, np.arange(start, min(start + CHUNK, size)))
        length_B = offsets[index_B + 1] - offsets[index_B]
        shift_T = np.repeat(offsets[index_B] - np.cumsum(length_B) + length_B, length_B)
        tag_T = values[np.arange(len(shift_T)) + shift_T]
        np.add.at(count_V, tag_T, 1)
    return count_V


def stretches(count: int) -> np.ndarray:
    """Where stretches of ranks start, from 0: single ranks first, then as wide as all in a log."""
    return np.unique(np.geomspace(1, count + 1, POINTS).round().astype(np.int64))[:-1] - 1


def _chart(shares: list[np.ndarray]) -> Html:
    starts = stretches(len(shares[0]))
    width_P = np.diff(starts, append=len(shares[0]))
    rank_P = starts + (width_P + 1) / 2
    lines = []
    for style, (name, share_V) in enumerate(zip(NAMES, shares)):
        mean_P = np.add.reduceat(share_V, starts) / width_P
        seen_P = np.where(mean_P > 0, mean_P, np.nan)  # a logarithmic scale has no 0
        lines.append(Series(name, rank_P.tolist(), seen_P.tolist(), style))
    drawing = chart("Share of images with a tag", lines, "rank of the tag", log=True, log_x=True)
    return tag("div", drawing, class_="charts")


def _table(names: list[str] | None, ranked: np.ndarray, shares: list[np.ndarray]) -> Html:
    """The most frequent, middle and rarest tags."""
    count = len(ranked)
    middle = (count - SHOWN) // 2
    places = [*range(SHOWN), *range(middle, middle + SHOWN), *range(count - SHOWN, count)]
    places = range(count) if count <= 3 * SHOWN else places
    rows = [
        [
            f"{names[ranked[i]] if names else ranked[i]}",
            f"{i + 1:,}",
            *(short(float(share_V[i])) for share_V in shares),
        ]
        for i in places
    ]
    caption = "Share of images with the most frequent, the middle and the rarest tags"
    return table(caption, ["tag", "rank", *NAMES], rows)


def _words(
    config: Config,
    images: int,
    length: int,
    size: int,
    expected_V: np.ndarray,
    drawn_V: np.ndarray,
) -> str:
    sampler = config.data.sampler
    whole = "all positions" if size == length else f"the first {size:,} positions"
    apart = int(np.ceil(np.abs(drawn_V - expected_V).max() * size))
    return (
        f"Balance {sampler.balance}, threshold {sampler.threshold:g}: {images:,} images make epochs"
        f" of {length:,}. What is drawn was counted over {whole} of the first: each tag is in as"
        f" many images as expected, within {apart:,}. Ranks are those in the source; where many"
        " share a place of the chart, it shows their mean."
    )
