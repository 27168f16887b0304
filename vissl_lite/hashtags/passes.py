"""What processes do with a batch of texts: find and number its tags.

Legend: N images, T pairs (image, tag), each once.
"""

import os
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
class Found:
    """The tags of a batch.

    Attributes:
        dictionary: process, and how often it has begun to number tags anew.
        new: the tags that follow in this dictionary, in the order of their numbers.
        counts_N: how many tags each image has; tags_T: their numbers, one image after the other.
        overlaps: key -> how often an image has more than one of its tags.
        empty: captions that are null or ""; broken: texts with bytes that are no UTF-8.
    """

    dictionary: tuple[int, int]
    new: list[str]
    counts_N: np.ndarray
    tags_T: np.ndarray
    overlaps: Counter[str]
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


class Find:
    """Texts -> Found."""

    def __init__(self, lexicon: Lexicon):
        self._finder = Finder(lexicon.key)
        self._told = 0, 0  # generation, how many of its tags were returned

    def __call__(self, texts: Texts) -> Found:
        captions, empty, broken = _cleaned(texts)
        rows_T, tags_T = self._finder.find(captions, texts.tags)
        dictionary, new = (os.getpid(), self._finder.generation), self._new()
        counts_N = np.bincount(rows_T, minlength=len(texts)).astype(np.int32)
        overlaps, tags_T = self._overlaps(rows_T, tags_T), tags_T.astype(np.int32)
        return Found(dictionary, new, counts_N, tags_T, overlaps, empty, broken)

    def _new(self) -> list[str]:
        names, generation = self._finder.names, self._finder.generation
        start = self._told[1] if self._told[0] == generation else 0
        self._told = generation, len(names)
        return names[start:]

    def _overlaps(self, rows_T: np.ndarray, tags_T: np.ndarray) -> Counter[str]:
        """sum of the tags' images - images of the key, where a key has several tags."""
        keys, label_of = self._finder.labels, self._finder.label_of
        several = np.bincount(label_of[label_of >= 0], minlength=len(keys) + 1) > 1
        keys_T = label_of[tags_T]  # -1, none, is the last of `several`, which is False
        rows_T, keys_T = rows_T[several[keys_T]], keys_T[several[keys_T]]
        if not len(keys_T):
            return Counter()
        more = np.bincount(keys_T, minlength=len(keys))
        more -= np.bincount(pairs(rows_T, keys_T)[1], minlength=len(keys))
        return Counter({keys[i]: int(more[i]) for i in np.flatnonzero(more).tolist()})
