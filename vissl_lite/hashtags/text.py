"""Hashtags of many captions at once.

Most captions and most tags have been seen before in some form, so the work is done on bytes and on
distinct strings: numpy finds each '#' and cuts out the run of bytes that can hold a tag, Arrow
numbers the distinct runs, and only these, remembered from batch to batch, see the rules of
`tags.py`. The result is that of `tags_in` on every caption.

Legend: N captions, C candidates (runs of bytes with one '#'), P distinct ones that are
remembered, T pairs (caption, tag).
"""

import itertools
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vissl_lite.hashtags.tags import tag_of, tags_in
from vissl_lite.hashtags.utf8 import bytes_of

KEEP = 1 << 18  # distinct strings that a process remembers, about 100 MB with their tags
# an ASCII byte that no tag holds ends a candidate; bytes above 127 wait for the rules
ENDS = bytes(c < 128 and not (chr(c).isalnum() or chr(c) == "_") for c in range(256))


class Finder:
    """Finds the tags of batches; remembers what the rules say of a string.

    Args:
        label: of a tag, any value, or None; asked once for each tag that is remembered.

    Attributes:
        names: tags by their numbers; labels: distinct labels; label_of: tag -> place in `labels`,
            or -1. All grow with every batch, until they are forgotten before a batch.
        generation: how often they were forgotten.
    """

    def __init__(self, label: Callable[[str], Any]):
        self._label, self.generation = label, -1
        self._forget()

    def _forget(self) -> None:
        self.generation += 1
        self.names: list[str] = []
        self.labels: list[Any] = []
        self.label_of = np.empty(0, np.int64)
        self._numbers: dict[str, int] = {}
        self._places: dict[Any, int] = {}
        self._in_captions: dict[bytes | None, int] = {}  # string -> its place among all of them
        self._in_lists: dict[bytes | None, int] = {}
        self._count, self._flat = array("i"), array("i")  # of every place: how many tags, and them

    def find(
        self, captions: pa.Array | None, tags: pa.Array | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Images, ascending, and numbers of their tags, [T] both; each pair once.

        Args:
            captions: valid UTF-8 as large_binary [N], without nulls.
            tags: a list of tags each, list<large_binary> [N].
        """
        if len(self._in_captions) + len(self._in_lists) > KEEP:
            self._forget()
        rows, numbers = [], []
        if captions is not None:
            rows_C, runs_C = candidates(captions)
            self._look_up(rows_C, runs_C, tags_in, self._in_captions, rows, numbers)
        if tags is not None:
            rows_C, runs_C = pc.list_parent_indices(tags).to_numpy(), pc.list_flatten(tags)
            self._look_up(rows_C, runs_C, _only_tag, self._in_lists, rows, numbers)
        self._label_new()
        return pairs(np.concatenate(rows), np.concatenate(numbers))

    def _look_up(
        self,
        rows_C: np.ndarray,
        strings_C: pa.Array,
        rule: Callable[[str], list[str]],
        known: dict[bytes | None, int],
        rows: list[np.ndarray],
        numbers: list[np.ndarray],
    ) -> None:
        """Appends image and number of each tag that the rule finds in the strings."""
        encoded = pc.dictionary_encode(strings_C, null_encoding="encode")
        strings = encoded.dictionary.to_pylist()
        places = list(map(known.get, strings))
        for i in [i for i, place in enumerate(places) if place is None]:
            places[i] = known[strings[i]] = self._learn(rule, strings[i])
        place_C = np.array(places, np.int64)[encoded.indices.to_numpy()]
        count_P = np.array(self._count)
        rows.append(np.repeat(rows_C, count_P[place_C]))
        numbers.append(np.array(self._flat)[_ragged(count_P, place_C)])

    def _learn(self, rule: Callable[[str], list[str]], string: bytes | None) -> int:
        tags, numbers = rule((string or b"").decode(errors="replace")), self._numbers
        self._flat.extend(numbers.setdefault(tag, len(numbers)) for tag in tags)
        self._count.append(len(tags))
        return len(self._count) - 1

    def _label_new(self) -> None:
        new = list(itertools.islice(self._numbers, len(self.names), None))
        self.names += new
        labels = [self._label(tag) for tag in new]
        places = [
            -1 if label is None else self._places.setdefault(label, len(self._places))
            for label in labels
        ]
        self.labels += itertools.islice(self._places, len(self.labels), None)
        self.label_of = np.append(self.label_of, np.array(places, np.int64))


def _only_tag(word: str) -> list[str]:
    return [tag] if (tag := tag_of(word)) else []


def candidates(captions: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Rows [C], and for each '#' the bytes from the character before it to the end of the run."""
    offsets_N, data = bytes_of(captions)
    hashes_C = _hashes(data)
    rows_C = np.searchsorted(offsets_N, hashes_C, side="right") - 1
    starts_C = _character_before(data, hashes_C, offsets_N[rows_C])
    ends = np.flatnonzero(np.frombuffer(data.tobytes().translate(ENDS), bool))
    after_C = np.append(ends, len(data))[np.searchsorted(ends, hashes_C, side="right")]
    stops_C = np.minimum(after_C, offsets_N[rows_C + 1])
    return rows_C, _slices(data, starts_C, stops_C)


def _hashes(data: np.ndarray) -> np.ndarray:
    """Places of '#', of the full-width '＃' (EF BC 83) and of the small '﹟' (EF B9 9F)."""
    plain = np.flatnonzero(data == ord("#"))
    wide = np.flatnonzero(data[:-2] == 0xEF)
    second, third = data[wide + 1], data[wide + 2]
    wide = wide[(second == 0xBC) & (third == 0x83) | (second == 0xB9) & (third == 0x9F)]
    return np.sort(np.concatenate([plain, wide])) if len(wide) else plain


def _character_before(data: np.ndarray, places_C: np.ndarray, first_C: np.ndarray) -> np.ndarray:
    """Where the character in front of each place begins; the place itself at the first of a row."""
    starts_C = np.maximum(places_C - 1, first_C)
    for _ in range(3):  # UTF-8: up to three bytes 10xxxxxx follow the first
        follows_C = (starts_C > first_C) & (data[starts_C] & 0xC0 == 0x80)
        if not follows_C.any():
            break
        starts_C = starts_C - follows_C
    return starts_C


def _slices(data: np.ndarray, starts_C: np.ndarray, stops_C: np.ndarray) -> pa.Array:
    """data[start:stop] of each pair, as an array of binaries."""
    offsets = np.append(0, np.cumsum(stops_C - starts_C))
    places = np.arange(offsets[-1]) + np.repeat(starts_C - offsets[:-1], stops_C - starts_C)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data[places])]
    return pa.Array.from_buffers(pa.large_binary(), len(starts_C), buffers)


def pairs(rows_T: np.ndarray, values_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct pairs (row, value) in order; a negative value is none."""
    rows_T, values_T = rows_T[values_T >= 0].astype(np.int64), values_T[values_T >= 0]
    scale = int(values_T.max(initial=0)) + 1
    rows, values = np.divmod(_distinct(rows_T * scale + values_T), scale)
    return rows, values


def _distinct(values: np.ndarray) -> np.ndarray:
    """Sorted and each once, for numbers >= 0; sorting is faster than the hashes of `np.unique`."""
    values = np.sort(values)
    return values[np.diff(values, prepend=-1) != 0]


def _ragged(count_P: np.ndarray, place_C: np.ndarray) -> np.ndarray:
    """Where the lists that place_C names are in the lists of lengths count_P behind one another."""
    start_P = np.cumsum(count_P) - count_P
    count_C = count_P[place_C]
    before_C = np.cumsum(count_C) - count_C
    return np.arange(count_C.sum()) + np.repeat(start_P[place_C] - before_C, count_C)
