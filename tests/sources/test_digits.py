"""digits against scikit-learn's own arrays."""

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits

from vissl_lite import SOURCES
from vissl_lite.sources.digits import Digits


def test_all_are_those_of_sklearn():
    source, theirs = Digits(split="all"), load_digits()
    assert len(source) == 1797
    images = np.stack([sample.image for sample in source])
    assert (images.dtype, images.shape) == (np.uint8, (1797, 8, 8))
    assert np.abs(images / 255 * 16 - theirs.images).max() <= 0.5 * 16 / 255
    assert (images.min(), images.max()) == (0, 255)
    assert [sample.label for sample in source] == theirs.target.tolist()
    assert (source.num_classes, source.classes[7]) == (10, "7")


def test_split_is_stratified_and_complete():
    train, test = Digits(), Digits(split="test")
    assert (len(train), len(test)) == (1438, 359)
    counts = np.bincount(load_digits().target)
    assert np.bincount(test.all_labels()).tolist() == np.rint(0.2 * counts).astype(int).tolist()
    parts = [sample.image.tobytes() for part in (train, test) for sample in part]
    assert sorted(parts) == sorted(s.image.tobytes() for s in Digits(split="all"))


def test_split_is_a_function_of_the_seed():
    assert np.array_equal(Digits().all_labels(), Digits(seed=0).all_labels())
    assert not np.array_equal(Digits(seed=1).all_labels(), Digits().all_labels())


def test_registry_pickle_and_range():
    source = pickle.loads(pickle.dumps(SOURCES.build("digits")))
    assert repr(source) == "Digits(train, 1,438 images, 10 classes)"
    for index in (-1, 1438):
        with pytest.raises(IndexError):
            source[index]
