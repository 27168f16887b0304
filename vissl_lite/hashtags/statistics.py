"""What a build has seen and kept, in numbers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vissl_lite.hashtags.passes import Found
from vissl_lite.hashtags.vocabulary import TagClass, Tally

POINTS = 200  # of a curve that is drawn


@dataclass
class Seen:
    """What the passes over the captions counted.

    Attributes:
        tags_per_image, classes_per_image: number of images with 0, 1, 2, ... of them.
        long: texts of CSV that may have a quote that nothing closes.
        skipped: rows that are left out, by reason.
    """

    images: int = 0
    empty: int = 0
    broken: int = 0
    long: int = 0
    tags_per_image: Counter[int] = field(default_factory=Counter)
    classes_per_image: Counter[int] = field(default_factory=Counter)
    skipped: dict[str, int] = field(default_factory=dict)

    def add(self, found: Found) -> None:
        self.images += len(found.counts_N)
        self.empty += found.empty
        self.broken += found.broken
        self.tags_per_image.update(dict(enumerate(np.bincount(found.counts_N).tolist())))


def statistics(
    seen: Seen,
    tally: Tally,
    classes: Sequence[TagClass],
    targets: Sequence[frozenset[str]] | None,
    keys: set[str],
) -> dict[str, Any]:
    """statistics.json; a use is a pair (image, tag), each counted once.

    Args:
        targets: keys of each target class.
        keys: of the classes that are kept.
    """
    kept_uses = sum(count for each in classes for _, count in each.members)
    tagged = seen.images - seen.tags_per_image[0]
    with_class = seen.images - seen.classes_per_image[0]
    numbers: dict[str, Any] = {
        "images": {
            "all": seen.images,
            "without a tag": seen.tags_per_image[0],
            "without a class": seen.classes_per_image[0],
            "with an empty caption": seen.empty,
            "with text that is not UTF-8": seen.broken,
            "with a text of CSV above 64 KB": seen.long,
            "skipped": seen.skipped,
        },
        "tags": {
            "all": tally.tags,
            "uses": tally.uses,
            "left out": tally.left_out_tags,
            "uses left out": tally.left_out_uses,
        },
        "classes": {
            "kept": len(classes),
            "with an image": sum(each.images > 0 for each in classes),
            "merged": sum(len(each.members) > 1 for each in classes),
            "members": sum(len(each.members) for each in classes),
            "below min-count": tally.rare_classes,
            "behind top": tally.beyond_classes,
        },
        "coverage": {
            "uses": kept_uses / tally.uses,
            "tagged images": with_class / tagged,
        },
        "rank_frequency": rank_frequency(tally.frequency),
        "cumulative": cumulative(classes, tally.uses),
        "tags_per_image": as_list(seen.tags_per_image),
        "classes_per_image": as_list(seen.classes_per_image),
    }
    if tally.missed is not None:
        numbers["not in the vocabulary"] = tally.missed
    if targets is not None:
        matched = sum(not keys.isdisjoint(each) for each in targets)
        numbers["targets"] = {"all": len(targets), "with a class": matched}
    return numbers


def rank_frequency(frequency: Counter[int]) -> list[tuple[int, int]]:
    """(rank, images) of tags in order of frequency: rank 1, and the last rank of each frequency."""
    counts = sorted(frequency, reverse=True)
    ranks = np.cumsum([frequency[count] for count in counts]).tolist()
    return [(1, counts[0]), *((ranks[i], counts[i]) for i in _spread(len(counts)))]


def cumulative(classes: Sequence[TagClass], uses: int) -> list[tuple[int, float]]:
    """(k, share of all uses of tags that the k most frequent classes cover)."""
    sums = np.cumsum([sum(count for _, count in each.members) for each in classes]) / uses
    return [(i + 1, round(float(sums[i]), 6)) for i in _spread(len(classes))]


def as_list(histogram: Counter[int]) -> list[int]:
    return [histogram[i] for i in range(max(histogram, default=0) + 1)]


def _spread(length: int) -> list[int]:
    """At most POINTS places in [0, length), evenly in the logarithm."""
    if length <= POINTS:
        return list(range(length))
    return np.unique(np.geomspace(1, length, POINTS).astype(int) - 1).tolist()
