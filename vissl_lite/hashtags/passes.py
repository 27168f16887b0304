"""What processes do with a batch of texts: count its tags, then name its classes.

Legend: N images, T pairs (image, tag), each once.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vissl_lite.hashtags.lexicon import Lexicon
from vissl_lite.hashtags.read import Texts
from vissl_lite.hashtags.text import Finder, pairs
from vissl_lite.hashtags.utf8 import repaired


@dataclass(frozen=True)
class Counted:
    """The tags of a batch, with the number of images that have each.

    Attributes:
        overlaps: key -> how often an image has more than one of its tags.
        tags_per_image: number of images with 0, 1, 2, ... tags.
        empty: captions that are null or ""; broken: texts with bytes that are no UTF-8.
    """

    tags: list[str]
    counts: list[int]
    overlaps: Counter[str]
    tags_per_image: Counter[int]
    empty: int
    broken: int


def _cleaned(texts: Texts) -> tuple[pa.Array | None, int, int]:
    """Captions in UTF-8; how many are empty, how many texts, tags too, were broken."""
    captions, empty, broken = texts.captions, 0, 0
    if captions is not None:
        captions, broken = repaired(pc.fill_null(captions, b""))
        empty = len(captions) - int(np.count_nonzero(pc.binary_length(captions)))
    if texts.tags is not None:
        broken += repaired(pc.fill_null(pc.list_flatten(texts.tags), b""))[1]
    return captions, empty, broken


class Count:
    """Texts -> Counted."""

    def __init__(self, lexicon: Lexicon):
        self._finder = Finder(lexicon.key)

    def __call__(self, texts: Texts) -> Counted:
        captions, empty, broken = _cleaned(texts)
        rows_T, tags_T = self._finder.find(captions, texts.tags)
        counts = np.bincount(tags_T)
        used = np.flatnonzero(counts)
        names = [self._finder.names[number] for number in used.tolist()]
        histogram = np.bincount(np.bincount(rows_T, minlength=len(texts))).tolist()
        overlaps, per_image = self._overlaps(rows_T, tags_T), Counter(dict(enumerate(histogram)))
        return Counted(names, counts[used].tolist(), overlaps, per_image, empty, broken)

    def _overlaps(self, rows_T: np.ndarray, tags_T: np.ndarray) -> Counter[str]:
        """sum of the tags' images - images of the key, where a key has several tags."""
        keys, keys_T = self._finder.labels, self._finder.label_of[tags_T]
        _, once = pairs(rows_T, keys_T)
        all_, once = (
            np.bincount(values, minlength=len(keys)) for values in (keys_T[keys_T >= 0], once)
        )
        more = all_ - once
        return Counter({keys[i]: int(more[i]) for i in np.flatnonzero(more).tolist()})


class Name:
    """Texts -> number of classes [N] of each image, and the ascending class ids of all of them.

    Args:
        ids: key -> class id, of the classes that are kept.
    """

    def __init__(self, lexicon: Lexicon, ids: dict[str, int]):
        self._finder = Finder(lambda tag: ids.get(lexicon.key(tag) or ""))

    def __call__(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        captions, *_ = _cleaned(texts)
        rows_T, tags_T = self._finder.find(captions, texts.tags)
        places_T = self._finder.label_of[tags_T]
        rows_T, places_T = rows_T[places_T >= 0], places_T[places_T >= 0]
        rows, ids_T = pairs(rows_T, np.array(self._finder.labels, np.int64)[places_T])
        return np.bincount(rows, minlength=len(texts)), ids_T.astype(np.int32)
