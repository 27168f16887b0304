"""The nearest test image of every training image, against one matrix product in float64."""

import numpy as np
import pytest
import torch

from vissl_lite import ConfigError
from vissl_lite.duplicates import find as module
from vissl_lite.duplicates.find import find

CPU = torch.device("cpu")
META = {"digest": "a", "size": 8, "transforms": [], "mean": [0], "std": [1], "layers": {"res5": 5}}


class Rows:
    """Features in memory, in blocks."""

    def __init__(self, x_ND, **meta):
        self.x_ND, self.meta = x_ND, {**META, **meta}

    def __len__(self):
        return len(self.x_ND)

    def blocks(self, layer):
        return ((start, self.x_ND[start : start + 7]) for start in range(0, len(self), 7))


@pytest.mark.parametrize("rows", [3, 4096])
def test_equals_one_matrix_product(rows, monkeypatch):
    monkeypatch.setattr(module, "ROWS", rows)
    rng = np.random.default_rng(0)
    train, *tests = (rng.normal(size=(n, 5)).astype(np.float32) for n in (40, 10, 11))
    train[3], train[8] = 5 * tests[1][4], np.nan  # a copy, and a broken image
    tests[0][2] = np.nan
    found = find(Rows(train), [Rows(test) for test in tests], "res5", 0.8, CPU)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, *tests)]
    cosine = np.nan_to_num(unit[0].astype(float) @ np.concatenate(unit[1:]).T, nan=-2)
    cosine[8] = -2
    best = cosine.max(1)
    order = [n for n in np.argsort(-best, kind="stable") if best[n] >= 0.8]
    assert found.train.tolist() == order
    np.testing.assert_allclose(found.cosine, best[order], atol=1e-6)
    place = np.where(found.split == 1, 10 + found.test, found.test)
    assert place.tolist() == cosine.argmax(1)[order].tolist()
    assert (found.train[0], found.split[0], found.test[0]) == (3, 1, 4)
    assert found.compared == 39
    assert found.counts.sum() == 39
    assert found.counts[100:].sum() == (best >= 0.5).sum()


def test_huge_features_do_not_overflow():
    x = np.full((1, 5), 3e30, np.float32)
    assert find(Rows(x), [Rows(x)], "res5", 0.9, CPU).cosine[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"digest": "b"}, r"not of one model and one way of seeing images \(digest differ\)"),
        ({"size": 16}, "size differ"),
        ({"layers": {"res4": 5}}, "no features of 'res5'; there are res4"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(train, message):
    x = np.ones((2, 5), np.float32)
    with pytest.raises(ConfigError, match=message):
        find(Rows(x, **train), [Rows(x)], "res5", 0.5, CPU)


def test_equal_images_have_cosine_1_and_are_counted():
    x = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    found = find(Rows(x), [Rows(x)], "res5", 0.5, CPU)
    assert found.cosine.max() <= 1
    np.testing.assert_allclose(found.cosine, 1, atol=1e-6)
    assert found.counts[-1] == found.counts.sum() == 200


def test_a_broken_test_image_is_near_to_nothing():
    train, test = -np.ones((1, 5), np.float32), np.ones((2, 5), np.float32)
    test[0] = np.nan
    found = find(Rows(train), [Rows(test)], "res5", -1.5, CPU)
    assert found.test.tolist() == [1]
    assert found.cosine[0] == pytest.approx(-1)
