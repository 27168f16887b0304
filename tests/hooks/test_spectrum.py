"""Numbers about embeddings, against numpy in float64 and against closed forms."""

import math

import numpy as np
import pytest
import torch

from vissl_lite.hooks._spectrum import effective_rank, embedding_std, pair_cosines


def numpy_rank(z):
    s = np.linalg.svd(z.double().numpy(), compute_uv=False)
    p = s / s.sum()
    p = p[p > 0]
    return math.exp(-(p * np.log(p)).sum())


@pytest.mark.parametrize("shape", [(64, 16), (16, 64), (300, 128), (40, 40)])
def test_effective_rank_is_exact_rankme(shape):
    z = torch.randn(shape) @ torch.diag(torch.logspace(0, -3, shape[1]))
    assert effective_rank(z).item() == pytest.approx(numpy_rank(z), rel=1e-6)


def test_effective_rank_of_centred_rows_with_a_large_mean():
    z = torch.randn(256, 32) + 100
    z = z - z.mean(0)
    assert effective_rank(z).item() == pytest.approx(numpy_rank(z), rel=1e-6)


@pytest.mark.parametrize(
    ("z", "rank"),
    [
        (torch.eye(12), 12.0),
        (torch.ones(8, 5), 1.0),
        (torch.zeros(8, 5), 1.0),
        (
            torch.diag(torch.tensor([3.0, 1.0])),
            math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4)),
        ),
    ],
)
def test_effective_rank_of_known_matrices(z, rank):
    assert effective_rank(z).item() == pytest.approx(rank, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_effective_rank_of_what_is_not_finite_is_nan(bad):
    z = torch.randn(8, 4)
    z[3, 2] = bad
    assert effective_rank(z).isnan()


def test_embedding_std_against_numpy():
    z = torch.randn(100, 24) * torch.rand(100, 1) + 0.3
    rows = z.double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert embedding_std(z).item() == pytest.approx(rows.std(0).mean() * math.sqrt(24), rel=1e-6)


def test_embedding_std_is_one_when_even_and_zero_when_collapsed():
    even = torch.cat([torch.eye(16), -torch.eye(16)])  # mean 0, the same variance in each column
    assert embedding_std(even).item() == pytest.approx(1.0, abs=1e-6)
    assert embedding_std(torch.randn(2000, 128)).item() == pytest.approx(1.0, abs=0.01)
    same_direction = torch.rand(50, 1) * torch.randn(1, 128)
    assert embedding_std(same_direction).item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("shape", [(2, 5, 7), (4, 3, 6)])
def test_pair_cosines_against_all_pairs(shape):
    crops, images, _ = shape
    z = torch.randn(shape) + 0.5
    rows = z.double().numpy()
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    same, other = [], []
    for v in range(crops):
        for w in range(crops):
            for b in range(images):
                for c in range(images):
                    if b == c and v != w:
                        same.append(rows[v, b] @ rows[w, c])
                    elif b != c:
                        other.append(rows[v, b] @ rows[w, c])
    got = pair_cosines(z)
    assert got[0].item() == pytest.approx(np.mean(same), abs=1e-6)
    assert got[1].item() == pytest.approx(np.mean(other), abs=1e-6)
