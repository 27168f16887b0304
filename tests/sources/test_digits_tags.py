"""digits_tags: what the tags say is in the image, and their frequencies are those of Zipf's law."""

import itertools
import pickle

import numpy as np
import pytest

from vissl_lite import SOURCES, ConfigError
from vissl_lite.sources.digits import load_digits
from vissl_lite.sources.digits_tags import DigitsTags, zipf


def pairs_in(image, split):
    """The names of the pairs in a mosaic, found by looking every 8x8 cell up among the digits."""
    images, labels = load_digits(split, 0)
    known = {digit.tobytes(): label for digit, label in zip(images, labels)}
    found = set()
    for row, column in itertools.product(range(0, len(image), 8), range(0, len(image), 16)):
        left, right = (image[row : row + 8, c : c + 8] for c in (column, column + 8))
        if left.any():
            found.add("{}-{}".format(*sorted((known[left.tobytes()], known[right.tobytes()]))))
    return found


@pytest.mark.parametrize(("grid", "split"), [(2, "train"), (4, "test")])
def test_tags_name_the_pairs_in_the_image(grid, split):
    source = DigitsTags(n=60, grid=grid, split=split, untagged=0.0)
    assert len(source) == 60
    assert len(source.classes) == source.num_classes == 55
    for sample in source:
        assert sample.image.shape == (8 * grid, 8 * grid)
        assert {source.classes[tag] for tag in sample.tags} == pairs_in(sample.image, split)
        assert sample.label is None


def test_frequencies_follow_zipf():
    """P(tag in image) = mean over K of 1 - (1 - p)^K; 5 sigma of the binomial for each tag."""
    n, source = 20_000, DigitsTags(n=20_000, untagged=0.0)
    p = source.frequency_V
    expected = (p + 1 - (1 - p) ** 2) / 2
    counts = np.bincount(source.all_tags()[0], minlength=55)
    assert np.all(np.abs(counts - n * expected) < 5 * np.sqrt(n * expected))
    assert np.allclose(np.sort(p)[::-1], (1 / np.arange(1, 56)) / np.sum(1 / np.arange(1, 56)))
    assert np.allclose(zipf(0.0), 1 / 55)


def test_untagged_images():
    n = 5_000
    _, offsets = DigitsTags(n=n, untagged=0.1).all_tags()
    empty = (np.diff(offsets) == 0).sum()
    assert abs(empty - 0.1 * n) < 5 * np.sqrt(n * 0.1 * 0.9)


def test_function_of_seed_split_and_index():
    source = DigitsTags(n=50)
    again = pickle.loads(pickle.dumps(DigitsTags(n=9)))
    for i in (8, 0, 3):
        assert np.array_equal(source[i].image, again[i].image)
        assert source[i].tags == again[i].tags
    values, offsets = source.all_tags()
    assert [values[a:b].tolist() for a, b in itertools.pairwise(offsets)] == [
        s.tags for s in source
    ]
    others = (DigitsTags(n=50, seed=1), DigitsTags(n=50, split="test"))
    assert all([s.tags for s in other] != [s.tags for s in source] for other in others)


def test_mistakes():
    with pytest.raises(ConfigError) as raised:
        SOURCES.build({"name": "digits_tags", "n": 0, "untagged": 2}, "data.source")
    assert raised.value.problems == [
        "data.source.n: 0; needs 1 or more",
        "data.source.untagged: 2; needs 0 to 1",
    ]
    for index in (-1, 10_000):
        with pytest.raises(IndexError):
            DigitsTags()[index]
