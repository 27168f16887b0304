"""subset: stratified shares, images per class, lists; the same wherever it is made."""

import pickle
from collections import Counter

import numpy as np
import pytest

from vissl_lite import SOURCES, ConfigError
from vissl_lite.data.batch import Sample
from vissl_lite.plugins import load_entries
from vissl_lite.sources.digits import Digits
from vissl_lite.sources.subset import Subset, labels_of, listed, stratified

load_entries()
DIGITS = Digits()
LABELS = DIGITS.all_labels().tolist()


class Plain:
    """A source of a third party: no index of labels, and some images have none."""

    num_classes, classes = 3, ["a", "b", "c"]
    labels = (0, 1, None, 2, 1, 0, 0, None, 0, 0)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return Sample(None, self.labels[index], name=f"d{index % 2}/{index // 2}.png")


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 1.0])
def test_a_share_of_every_class(share):
    subset = Subset("digits", share=share)
    expected = {c: max(1, round(share * n)) for c, n in Counter(LABELS).items()}
    assert Counter(LABELS[i] for i in subset.index_n) == expected
    assert subset.index_n.tolist() == sorted(set(subset.index_n.tolist()))


@pytest.mark.parametrize("k", [1, 25, 1000])
def test_images_per_class(k):
    subset = Subset("digits", per_class=k)
    assert Counter(LABELS[i] for i in subset.index_n) == {
        c: min(k, n) for c, n in Counter(LABELS).items()
    }


def test_a_smaller_share_is_part_of_a_larger_one():
    one, ten, other = (
        set(Subset("digits", share=share, seed=seed).index_n.tolist())
        for share, seed in [(0.01, 3), (0.1, 3), (0.1, 4)]
    )
    assert one < ten
    assert len(ten & other) < 0.3 * len(ten)


def test_the_rest_is_what_was_not_chosen():
    chosen, rest = (Subset("digits", share=0.9, rest=rest).index_n for rest in (False, True))
    assert sorted([*chosen, *rest]) == list(range(len(DIGITS)))
    assert len(set(np.array(LABELS)[rest])) == 10


def test_every_image_is_equally_likely():
    """3 of 8 images, 4,000 seeds: chi-square with 7 degrees of freedom, 24.3 at p = 0.001."""
    label_N = np.array([1, -1, 1, 1, 1, -1, 1, 1, 1, 1])
    drawn = [stratified(label_N, lambda n: np.minimum(n, 3), seed) for seed in range(4000)]
    times = np.bincount(np.concatenate(drawn), minlength=10)
    assert times[[1, 5]].tolist() == [0, 0]
    expected = 4000 * 3 / 8
    assert ((times[label_N == 1] - expected) ** 2).sum() / expected / (1 - 3 / 8) < 24.3


def test_labels_without_an_index():
    assert labels_of(Plain()).tolist() == [0, 1, -1, 2, 1, 0, 0, -1, 0, 0]


def test_passes_everything_on():
    subset = pickle.loads(pickle.dumps(Subset("digits", share=0.1)))
    assert (subset.num_classes, subset.classes) == (10, DIGITS.classes)
    for i, index in enumerate(subset.index_n):
        assert np.array_equal(subset[i].image, DIGITS[index].image)
        assert np.array_equal(subset.images()[i], DIGITS[index].image)
        assert subset[i].label == subset.all_labels()[i] == LABELS[index]
    assert list(subset.names()) == [f"digits/train/{i}" for i in subset.index_n]
    assert "of Digits(train, 1,438 images" in repr(subset)


def test_a_list_of_names(tmp_path):
    (tmp_path / "list.txt").write_text("digits/train/7\n\n3\ndigits/train/11\n")
    subset = Subset("digits", list=str(tmp_path / "list.txt"))
    assert subset.index_n.tolist() == [3, 7, 11]


def test_a_list_of_tagged_images(tmp_path):
    tagged = {"name": "digits_tags", "n": 6}
    names = [SOURCES.build(tagged)[i].name for i in (4, 1)]
    (tmp_path / "list.txt").write_text("\n".join(names))
    subset = Subset(tagged, list=str(tmp_path / "list.txt"))
    values, offsets = subset.all_tags()
    tags = [values[offsets[i] : offsets[i + 1]].tolist() for i in (0, 1)]
    assert tags == [SOURCES.build(tagged)[i].tags for i in (1, 4)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.png", r"'0\.png' fits 2 images; write it with its folders"),
        ("d0/0.png\nfox.png", r"1 of 2 names in .* fit no image, such as 'fox\.png'"),
    ],
)
def test_lists_that_do_not_fit(tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ConfigError, match=message):
        listed(Plain(), str(tmp_path / "list.txt"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"subset: none of share, per_class and list; give exactly one"),
        ({"share": 0.1, "per_class": 3}, r"subset: share and per_class of share, per_class and"),
        ({"share": 0.0}, r"subset\.share: is 0; needs more than 0"),
        ({"share": 1.5}, r"subset\.share: is 1\.5"),
        ({"per_class": 0}, r"subset\.per_class: is 0; needs at least 1"),
        ({"list": "x.txt", "rest": True}, r"subset\.rest: belongs to share and per_class"),
        ({"share": 1.0, "rest": True}, r"subset: nothing is left of Digits"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        Subset("digits", **settings)


def test_a_source_without_labels():
    with pytest.raises(ConfigError, match=r"subset\.source: DigitsTags.* has no labels to choose"):
        Subset({"name": "digits_tags", "n": 6}, share=0.5)
