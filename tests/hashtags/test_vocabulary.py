"""Counts to classes: names, order, least count, most frequent; counts that go to disk."""

import random
from collections import Counter

import pytest

from vissl_lite.hashtags.counts import TagCounts
from vissl_lite.hashtags.lexicon import Lexicon
from vissl_lite.hashtags.vocabulary import TagClass, settle
from vissl_lite.hashtags.wordnet import WordNet

COUNTS = {"bear": 5, "bruin": 3, "brownbear": 7, "cat": 2, "kitty": 9, "sun": 6, "sea": 6, "x": 1}
LEXICON = Lexicon(
    {"kitty": "cat"}, frozenset({"cat"}), wordnet=WordNet({"bruin": (20,), "brownbear": (20,)}, {})
)


def settled(min_count=1, top=None, lexicon=LEXICON, overlaps=None):
    keyed, tally = settle(sorted(COUNTS.items()), Counter(overlaps), lexicon, min_count, top)
    return [each for _, each in keyed], tally


def test_merged_named_and_ordered():
    classes, tally = settled(overlaps={"wn:00000020": 2})
    assert classes == [
        TagClass("cat", 11, (("kitty", 9), ("cat", 2))),  # the name of the alias file
        TagClass("brownbear", 8, (("brownbear", 7), ("bruin", 3)), "n00000020"),
        TagClass("sea", 6, (("sea", 6),)),  # equal counts: by name
        TagClass("sun", 6, (("sun", 6),)),
        TagClass("bear", 5, (("bear", 5),)),
        TagClass("x", 1, (("x", 1),)),
    ]
    assert (tally.tags, tally.uses, tally.frequency[6]) == (8, 39, 2)


def test_filters_are_counted():
    classes, tally = settled(min_count=6, top=3)
    assert [each.name for each in classes] == ["cat", "brownbear", "sea"]
    assert (tally.rare_classes, tally.beyond_classes) == (2, 1)
    classes, tally = settled(lexicon=Lexicon(blocked=frozenset({"kitty", "x"})))
    assert (tally.left_out_tags, tally.left_out_uses, len(classes)) == (2, 10, 6)


def test_top_of_many(monkeypatch):
    """Rare tags are dropped on the way; what is left is the same."""
    draw = random.Random(0)
    counts = [(f"{i:05d}", draw.randint(1, 500)) for i in range(9_000)]
    keyed, tally = settle(counts, Counter(), Lexicon(), 3, 20)
    wanted = sorted(counts, key=lambda pair: (-pair[1], pair[0]))[:20]
    assert [(each.name, each.images) for _, each in keyed] == wanted
    rare = sum(count < 3 for _, count in counts)
    assert (tally.rare_classes, tally.beyond_classes) == (rare, 9_000 - rare - 20)


@pytest.mark.parametrize("limit", [0, 50, 10**6])
def test_counts_on_disk(tmp_path, limit):
    draw, counts, wanted = random.Random(0), TagCounts(tmp_path, limit), Counter()
    for _ in range(20):
        batch = Counter(draw.choices(["a", "é", "東京", "🐻", *map(str, range(100))], k=200))
        counts.add(batch.keys(), batch.values())
        wanted += batch
    assert len(counts.runs) == {0: 20, 50: 20, 10**6: 0}[limit]
    assert list(counts.sorted()) == sorted(wanted.items())
