"""Neighbours against all cosines at once, in float64."""

import numpy as np
import pytest
from engine.some_digits import SomeDigits
from extract.some_subject import some_subject

from vissl_lite import ConfigError
from vissl_lite.extract import parquet, stored
from vissl_lite.extract.extract import Settings, extract
from vissl_lite.extract.nearest import nearest, row_of
from vissl_lite.extract.stored import open_features

N, BROKEN = 50, (4, 30)


@pytest.fixture(scope="module", params=["out", "out.parquet"])
def features(request, tmp_path_factory):
    """In pieces of 7 rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "ROWS", 7)
        patch.setattr(stored, "ROWS", 7)
        out = tmp_path_factory.mktemp("features") / request.param
        extract(some_subject(), SomeDigits(N, BROKEN), {}, out, Settings(["res5"], batch_size=16))
        yield open_features(out)


def rows(features):
    return np.concatenate([x_ND for _, x_ND in features.blocks("res5")]).astype(np.float64)


@pytest.mark.parametrize("k", [1, 5, 100])
def test_equals_all_cosines_sorted(features, k):
    x_ND = rows(features)
    x_ND /= np.linalg.norm(x_ND, axis=1, keepdims=True)
    for query in (0, 29, N - 1):
        expected_N = x_ND @ x_ND[query]
        expected_N[[query, *BROKEN]] = -2
        order = np.argsort(-expected_N, kind="stable")[: min(k, N - 3)]
        cosine, index = nearest(features.row("res5", query), features, "res5", k, leave_out=query)
        np.testing.assert_array_equal(index, order)
        np.testing.assert_allclose(cosine, expected_N[order], atol=1e-6)


def test_a_query_from_elsewhere_finds_itself(features):
    cosine, index = nearest(3 * features.row("res5", 11), features, "res5", 2)
    assert index[0] == 11
    assert cosine[0] == pytest.approx(1, abs=1e-6)


class InMemory:
    def __init__(self, *blocks):
        self._blocks = blocks

    def blocks(self, layer):
        return self._blocks


def test_zeros_large_values_and_ties():
    """Squares of 6e4 overflow float16; equal cosines keep the order of the source."""
    first = np.array([[0, 0], [6e4, 6e4], [1, 1]], np.float16)
    second = np.array([[2, 2], [np.nan, np.nan], [1, -1]], np.float16)
    cosine, index = nearest(np.array([1, 1]), InMemory((0, first), (3, second)), "", 6)
    assert index.tolist() == [1, 2, 3, 0, 5]
    np.testing.assert_allclose(cosine, [1, 1, 1, 0, 0], atol=1e-6)


def test_images_without_a_row(features):
    with pytest.raises(ConfigError, match="no image 50; the features have the images 0 to 49"):
        row_of(features, "res5", 50)
    with pytest.raises(ConfigError, match=r"image 30 \(n30\) is broken"):
        row_of(features, "res5", 30)
