"""mix: a virtual concatenation; labels, tags, weights and maps of its parts."""

import itertools
import pickle

import numpy as np
import pytest

from vissl_lite import SOURCES, ConfigError
from vissl_lite.plugins import load_entries
from vissl_lite.sources.digits import Digits
from vissl_lite.sources.mix import Mix

load_entries()
GRAY = {"name": "synthetic", "n": 7, "size": 2, "num_classes": 3}
TAGGED = {"name": "digits_tags", "n": 4}


def test_concatenation():
    mix = Mix([{"name": "digits", "split": "test"}, "digits", {"name": "digits", "split": "test"}])
    assert (mix.parts, len(mix), mix.weights) == ([359, 1438, 359], 2156, None)
    test, train = Digits(split="test"), Digits()
    ends = [(0, test, 0), (358, test, 358), (359, train, 0), (1796, train, 1437), (1797, test, 0)]
    for index, source, place in ends:
        assert np.array_equal(mix[index].image, source[place].image)
        assert mix[index].label == source[place].label
    labels = np.concatenate([test.all_labels(), train.all_labels(), test.all_labels()])
    assert np.array_equal(mix.all_labels(), labels)
    assert (mix.classes, mix.num_classes) == (test.classes, 10)


def test_parts_with_different_targets():
    mix = Mix([GRAY, TAGGED], weights=[3, 1])
    assert mix.weights == [3, 1]
    assert (mix[6].label, mix[6].tags) == (0, None)
    assert mix[7].label is None
    assert mix[7].tags == SOURCES.build(TAGGED)[0].tags
    assert (mix.num_classes, mix.classes, mix.all_labels(), mix.all_tags()) == (
        55,
        None,
        None,
        None,
    )


def test_tags_of_all_parts():
    mix = Mix([TAGGED, {**TAGGED, "seed": 1}])
    values, offsets = mix.all_tags()
    assert [values[a:b].tolist() for a, b in itertools.pairwise(offsets)] == [s.tags for s in mix]
    assert len(mix.classes) == 55


def test_label_maps():
    even = {str(digit): digit % 2 for digit in range(10)}
    mix = Mix(["digits", GRAY], label_maps=[even, {0: 5, 1: 6, 2: 5}])
    digits = Digits()
    expected = [label % 2 for label in digits.all_labels()] + [5, 6, 5, 5, 6, 5, 5]
    assert [s.label for s in mix] == mix.all_labels().tolist() == expected
    assert (mix.num_classes, mix.classes) == (7, None)
    tags = Mix([TAGGED], label_maps=[dict.fromkeys(SOURCES.build(TAGGED).classes, 8)])
    assert all(set(sample.tags) <= {8} for sample in tags)


def test_pickle_and_range():
    mix = pickle.loads(pickle.dumps(Mix(["digits", GRAY])))
    assert mix[1438].name == "synthetic/0"
    for index in (-1, 1445):
        with pytest.raises(IndexError):
            mix[index]


def test_mistakes():
    with pytest.raises(ConfigError, match=r"mix.sources: is empty"):
        Mix([])
    with pytest.raises(
        ConfigError, match=r"mix.sources\[1\]: unknown key 'splitt' .*did you mean 'split'"
    ):
        Mix(["digits", {"name": "digits", "splitt": "test"}])
    with pytest.raises(ConfigError, match=r"unknown source 'digit'; did you mean 'digits'"):
        SOURCES.build({"name": "mix", "sources": ["digit"]})
    with pytest.raises(ConfigError, match=r"1 weights for 2 sources"):
        Mix([GRAY, GRAY], weights=[1.0])
    for weights in ([0.0, 0.0], [-1.0, 2.0], [float("nan"), 1.0]):
        with pytest.raises(ConfigError, match=r"needs numbers >= 0, not all 0"):
            Mix([GRAY, GRAY], weights=weights)
    with pytest.raises(ConfigError, match=r"class names of the sources differ.*give label_maps"):
        Mix(["digits", TAGGED])
    with pytest.raises(ConfigError, match=r"1 maps for 2 sources"):
        Mix([GRAY, GRAY], label_maps=[None])
    with pytest.raises(ConfigError, match=r"mix.label_maps\[0\]: lacks class '2'"):
        Mix([GRAY], label_maps=[{"0": 0, "1": 1}])
    with pytest.raises(ConfigError, match=r"mix.label_maps\[0\].1: is negative"):
        Mix([GRAY], label_maps=[{"0": 0, "1": -1, "2": 0}])
