"""Hashtags of many captions at once are those of each one."""

import random

import numpy as np
import pyarrow as pa
import pytest

from vissl_lite.hashtags import text as module
from vissl_lite.hashtags.tags import tags_in
from vissl_lite.hashtags.text import Finder
from vissl_lite.hashtags.utf8 import broken_rows, repaired

ALPHABET = "##＃﹟aB1_ &/é\u0301\u200d\u200c\ufe0f❤🐻東。½ßｶﾞ²\u20e3.-\n한\U000e0067"


def drawn(count, seed=0):
    draw = random.Random(seed)
    return ["".join(draw.choices(ALPHABET, k=draw.randint(0, 12))) for _ in range(count)]


def per_image(finder, captions, tags=None):
    rows_T, tags_T = finder.find(captions, tags)
    assert (np.diff(rows_T) >= 0).all()
    assert len(set(zip(rows_T.tolist(), tags_T.tolist()))) == len(rows_T)  # each pair once
    found = [set() for _ in captions]
    for row, tag in zip(rows_T.tolist(), tags_T.tolist()):
        found[row].add(finder.names[tag])
    return found


def binary(texts):
    return pa.array([text.encode() for text in texts], pa.large_binary())


@pytest.mark.parametrize("keep", [1 << 18, 10])
def test_captions(keep, monkeypatch):
    monkeypatch.setattr(module, "KEEP", keep)
    texts, finder = drawn(30_000), Finder(len)
    for start in (0, 10_001, 29_999):  # slices, and a memory of earlier batches
        part = texts[start : start + 15_000]
        found = per_image(finder, binary(texts).slice(start, 15_000))
        assert found == [set(tags_in(text)) for text in part]
        assert [finder.labels[i] for i in finder.label_of] == list(map(len, finder.names))


def test_lists_and_captions_together():
    lists = [["#Sun", "brown bear", "", None], None, [], ["1", "sea", "SEA"]]
    captions = ["#sun #x", "#y", "", "#sea"]
    tags = pa.array(lists, pa.list_(pa.large_binary()))
    assert per_image(Finder(str), binary(captions), tags) == [
        {"sun", "brownbear", "x"},
        {"y"},
        set(),
        {"sea"},
    ]


@pytest.mark.parametrize("texts", [[], [""], ["", "no tag", ""], ["#"], ["é#a"]])
def test_few(texts):
    assert per_image(Finder(str), binary(texts)) == [set() for _ in texts]


def test_bytes_that_are_no_utf8():
    """The end of a character, and its rest in the next text, are two broken texts."""
    texts = [b"\xe6\x9d", b"\xb1 #a", b"caf\xe9 #b", "東 #c".encode(), b"", b"\xff"]
    array = pa.array([b"#skipped", *texts], pa.large_binary()).slice(1)
    assert broken_rows(array).tolist() == [0, 1, 2, 5]
    mended, count = repaired(array)
    assert count == 4
    assert mended.to_pylist() == [t.decode(errors="replace").encode() for t in texts]
    assert repaired(mended) == (mended, 0)
    assert per_image(Finder(str), mended) == [set(), {"a"}, {"b"}, {"c"}, set(), set()]
