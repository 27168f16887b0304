"""synthetic: shapes, determinism, distribution."""

import pickle

import numpy as np
import pytest

from vissl_lite import SOURCES, ConfigError
from vissl_lite.sources.synthetic import Synthetic


def test_noise_is_uniform_and_a_function_of_seed_and_index():
    source = Synthetic(n=5, size=64)
    image = source[3].image
    assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)
    counts = np.bincount(image.ravel(), minlength=256)
    chi2 = ((counts - 48) ** 2 / 48).sum()  # 255 degrees of freedom: 255 +- 22.6
    assert 150 < chi2 < 370
    assert np.array_equal(image, pickle.loads(pickle.dumps(source))[3].image)
    assert not np.array_equal(image, source[4].image)
    assert not np.array_equal(image, Synthetic(n=5, size=64, seed=1)[3].image)


def test_labels_and_gray():
    source = Synthetic(n=7, size=2, kind="gray", num_classes=3)
    assert [s.label for s in source] == source.all_labels().tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert (source[6].image == 128).all()
    assert source.num_classes == 3
    for index in (-1, 7):
        with pytest.raises(IndexError):
            source[index]


def test_mistakes():
    with pytest.raises(ConfigError, match=r"data.source.size: 0; needs 1 or more"):
        SOURCES.build({"name": "synthetic", "size": 0}, "data.source")
