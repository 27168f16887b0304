import itertools
import math
from collections import Counter

import numpy as np
import pytest

from vissl_lite.data.random import generator, permute, ragged, uniforms

ARGUMENTS = list(itertools.product((0, 1, 2**40), (0, 1, 9), (0, 1, 2**33), (0, 1, 7), (0, 1)))


def test_generator_is_a_pure_function():
    a, b = generator(3, 1, 4, 1, 5), generator(3, 1, 4, 1, 5)
    np.testing.assert_array_equal(a.random(100), b.random(100))


def test_generators_share_no_numbers():
    words = [generator(*a).integers(0, 2**64, 50, np.uint64) for a in ARGUMENTS]
    assert len(np.unique(words)) == len(ARGUMENTS) * 50


def test_generators_are_known_philox_streams():
    """The numbers are part of the checkpoint: they must never change."""
    expected = np.random.Generator(np.random.Philox(key=[7, 2], counter=[0, 5, 11, 3]))
    assert generator(7, 3, 11, 5, 2).random() == expected.random()
    assert generator(0, 0, 0, 0).random() == 0.011546754286331562


@pytest.mark.parametrize("vary", range(5))
def test_neighbouring_streams_are_uncorrelated(vary):
    """First numbers of 4000 consecutive seeds, epochs, positions, views, streams."""
    arguments = np.zeros((4000, 5), int)
    arguments[:, vary] = np.arange(4000)
    u = np.array([generator(*a).random() for a in arguments.tolist()]) - 0.5
    assert abs(u.mean()) < 4 / np.sqrt(12 * 4000)
    assert abs((u[1:] * u[:-1]).mean() * 12) < 4 / np.sqrt(4000)


@pytest.mark.parametrize("n", [*range(1, 1001, 37), 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 1000, 50_000])
@pytest.mark.parametrize("seed", [0, 12345])
def test_permutation_is_a_bijection(n, seed):
    np.testing.assert_array_equal(np.sort(permute(np.arange(n), n, seed, 2)), np.arange(n))


def test_bijection_for_every_small_n():
    for n in range(1, 1001):
        assert (np.bincount(permute(np.arange(n), n, n, 0), minlength=n) == 1).all(), n


def test_random_access():
    everything = permute(np.arange(5000), 5000, 1, 1)
    np.testing.assert_array_equal(permute(np.arange(700, 900), 5000, 1, 1), everything[700:900])
    np.testing.assert_array_equal(permute(np.array([[3], [9]]), 5000, 1, 1), everything[[[3], [9]]])


def test_huge_n():
    n = 10**12
    order = permute(np.arange(n - 10_000, n), n, 0, 0)
    assert order.dtype == np.int64
    assert len(np.unique(order)) == 10_000
    assert 0 <= order.min() < 0.001 * n < 0.999 * n < order.max() < n


def test_seed_and_epoch_change_the_order():
    orders = [permute(np.arange(1000), 1000, s, e) for s in range(3) for e in range(3)]
    equal = [(a == b).sum() for a, b in itertools.combinations(orders, 2)]
    assert max(equal) < 8  # Poisson(1) in random permutations


@pytest.mark.parametrize("n", [2, 3, 4, 5, 7])
def test_every_permutation_of_few_is_equally_likely(n):
    draws, kinds = 4000, math.factorial(n)
    if n == 7:  # too many to count; take the images of three positions instead
        kinds, positions = 7 * 6 * 5, np.arange(3)
    else:
        positions = np.arange(n)
    counts = Counter(tuple(permute(positions, n, seed, 0).tolist()) for seed in range(draws))
    expected = draws / kinds
    chi_square = sum((c - expected) ** 2 / expected for c in counts.values())
    assert len(counts) == kinds
    assert chi_square < kinds - 1 + 4 * np.sqrt(2 * (kinds - 1))


def test_first_position_is_uniform_over_seeds():
    firsts = [int(permute(np.array([0]), 50, seed, 0)[0]) for seed in range(4000)]
    chi_square = ((np.bincount(firsts, minlength=50) - 80.0) ** 2 / 80).sum()
    assert chi_square < 49 + 4 * np.sqrt(2 * 49)


@pytest.mark.parametrize("lag", [0, 1, 2, 223, 224])
def test_order_is_uncorrelated_with_place_and_neighbours(lag):
    """224 rows of 224 are the two halves of the cipher for n = 50,000."""
    order = permute(np.arange(50_000), 50_000, 5, 0).astype(float)
    other = np.arange(50_000.0) if lag == 0 else np.roll(order, lag)
    assert abs(np.corrcoef(order, other)[0, 1]) < 4 / np.sqrt(50_000)
    steps = (order - other) % 50_000 / 50_000  # uniform on the circle
    chi_square = ((np.histogram(steps, 50, (0, 1))[0] - 1000.0) ** 2 / 1000).sum()
    assert chi_square < 49 + 4 * np.sqrt(2 * 49)


@pytest.mark.parametrize("positions", [[-1], [10], [0, 10]])
def test_positions_outside(positions):
    with pytest.raises(IndexError, match=r"\[0, 10\)"):
        permute(np.array(positions), 10, 0, 0)


@pytest.mark.parametrize("draws", [0, 1, 4, 9, 22])
def test_uniforms_of_a_position_do_not_depend_on_the_others(draws):
    whole = uniforms(3, 1, np.arange(100, 140), 2, 1, draws)
    assert whole.shape == (40, draws)
    for chosen in ([7], [3, 4, 5], [39, 0, 1, 20], range(39, -1, -1)):
        rows = np.array(chosen)
        np.testing.assert_array_equal(uniforms(3, 1, 100 + rows, 2, 1, draws), whole[rows])


def test_uniforms_share_no_numbers():
    arguments = itertools.product((0, 2**40), (0, 9), (0, 2**33), (0, 7), (0, 1), (3, 4, 22))
    rows = [uniforms(s, e, np.arange(p, p + 3), v, t, d) for s, e, p, v, t, d in arguments]
    by_draws = {d: np.concatenate([r.ravel() for r in rows if r.shape[1] == d]) for d in (3, 4, 22)}
    for d, numbers in by_draws.items():
        assert len(np.unique(numbers)) == 32 * 3 * d


def test_ragged_numbers_are_those_of_generators():
    """NumPy's own Philox, at positions near and far; nothing, less than a block, several blocks."""
    seed, counts = 2**62 + 5, np.array([3, 0, 4, 1, 9, 26])
    positions = np.array([0, 1, 2, 7, 2**40 + 1, 2**63 - 1])
    one_by_one = [generator(seed, 0, p, 0, 18).random(c) for p, c in zip(positions, counts)]
    np.testing.assert_array_equal(ragged(seed, positions, counts, 18), np.concatenate(one_by_one))


def test_uniforms_are_a_known_philox_stream():
    """The numbers are part of the checkpoint: they must never change."""
    rng = np.random.Generator(np.random.Philox(key=[7, 2], counter=[11 * 3, 5, 1, 3]))
    expected = rng.random(24).reshape(2, 12)[:, :9]
    np.testing.assert_array_equal(uniforms(7, 3, np.array([11, 12]), 5, 1, 9), expected)


@pytest.mark.parametrize("vary", range(5))
def test_uniforms_of_neighbours_are_uncorrelated(vary):
    """Of 4000 consecutive seeds, epochs, positions, views, places."""
    arguments = np.zeros((4000, 5), int)
    arguments[:, vary] = np.arange(4000)
    u = [uniforms(s, e, np.array([p]), v, t, 2)[0] for s, e, p, v, t in arguments.tolist()]
    u = np.array(u) - 0.5
    assert (abs(u.mean(0)) < 4 / np.sqrt(12 * 4000)).all()
    assert (abs((u[1:] * u[:-1]).mean(0) * 12) < 4 / np.sqrt(4000)).all()
