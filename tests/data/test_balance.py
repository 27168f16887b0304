"""Repeat factors as in the papers, and an order that keeps to them exactly.

Legend: N images, V kinds of tags, E epochs.
"""

import numpy as np
import pytest

from vissl_lite.data.balance import (
    BLOCK,
    BalancedOrder,
    image_factors,
    tag_counts,
    tag_factors,
)
from vissl_lite.data.sampler import StepSampler


class InMemory(np.ndarray):
    """An array that is read as a column."""

    def array(self):
        return np.asarray(self)

    def read(self, start, stop):
        return np.asarray(self[start:stop])


def order_of(r_N, seed=0):
    r_N = np.asarray(r_N, np.float32)
    ends = np.cumsum(np.add.reduceat(r_N.astype(float), np.arange(0, len(r_N), BLOCK)))
    return BalancedOrder(r_N.view(InMemory), ends.view(InMemory), seed)


def copies(order, epoch, images):
    return np.bincount(order.indices(epoch, np.arange(len(order))), minlength=images)


def zipf_tags(images, kinds, seed=0):
    """Up to four tags of each image, some without any."""
    rng = np.random.default_rng(seed)
    p = 1 / np.arange(1, kinds + 1)
    rows = [np.unique(rng.choice(kinds, rng.integers(0, 5), p=p / p.sum())) for _ in range(images)]
    return rows, np.concatenate(rows), np.cumsum([0, *map(len, rows)])


@pytest.mark.parametrize("balance", ["sqrt", "uniform"])
@pytest.mark.parametrize("smallest", [1.0, 0.2])
def test_factors_by_the_formula(balance, smallest, monkeypatch):
    rows, values, offsets = zipf_tags(500, 40)
    monkeypatch.setattr("vissl_lite.data.balance.CHUNK", 64)  # several chunks
    count_V = tag_counts(values, 41)  # tag 40 does not occur
    assert count_V.tolist() == [sum(tag in row for row in rows) for tag in range(41)]
    factor_V = tag_factors(count_V, 500, balance, 0.05, smallest)
    found = np.concatenate(list(image_factors(values, offsets, factor_V, untagged=smallest)))
    phi = np.sqrt if balance == "sqrt" else float
    expected = [max([smallest, *(phi(0.05 / (count_V[tag] / 500)) for tag in row)]) for row in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.max() > 1.5  # rare tags are there


def test_every_image_comes_floor_or_ceil_of_its_factor_times():
    r_N = np.random.default_rng(1).uniform(0.1, 4, 1000).astype(np.float32)
    order = order_of(r_N)
    assert len(order) == round(float(r_N.astype(float).sum()))
    scaled = r_N * order.scale
    for epoch in range(5):
        count_N = copies(order, epoch, 1000)
        assert count_N.sum() == len(order)
        assert (np.abs(count_N - scaled) < 1 + 1e-6).all()


def test_over_epochs_the_rounding_is_as_often_up_as_the_fraction_says():
    """Mean over E epochs within 5 standard deviations of r; neighbours share no luck."""
    r_N = np.full(600, 1.3, np.float32)
    order, epochs = order_of(r_N), 400
    count_EN = np.stack([copies(order, epoch, 600) for epoch in range(epochs)])
    mean_N = count_EN.mean(0)
    sigma = np.sqrt(0.3 * 0.7 / epochs)
    assert np.abs(mean_N - 1.3).max() < 5 * sigma
    extra_EN = count_EN[:, :BLOCK] - 1
    correlation = np.corrcoef(extra_EN.T)[np.triu_indices(BLOCK, 1)]
    assert np.abs(correlation).max() < 6 / np.sqrt(epochs)


def test_factor_one_is_every_image_once():
    order = order_of(np.ones(700))
    assert sorted(order.indices(3, np.arange(700))) == list(range(700))


def test_epochs_differ_and_are_shuffled():
    order = order_of(np.full(512, 2.0))
    first, second = (order.indices(epoch, np.arange(1024)) for epoch in (0, 1))
    assert (first != second).mean() > 0.9
    assert np.abs(np.corrcoef(first, np.arange(1024))[0, 1]) < 0.15
    assert (order_of(np.full(512, 2.0), seed=1).indices(0, np.arange(1024)) != first).mean() > 0.9


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("start", [0, 7])
def test_the_stream_is_the_same_for_all_ranks_and_after_a_resume(world, start):
    order = order_of(np.random.default_rng(2).uniform(0.5, 3, 300))

    def stream(rank, world, start):
        sampler = StepSampler(len(order), 8, 90, start=start, rank=rank, world=world)
        return [order.indices(request.epoch, request.positions) for request in sampler]

    whole = stream(0, 1, 0)
    ranks = zip(*(stream(rank, world, start) for rank in range(world)))
    for step, parts in enumerate(ranks, start):
        assert np.concatenate(parts).tolist() == whole[step].tolist()


def test_positions_come_in_any_subset_and_order():
    order = order_of(np.random.default_rng(3).uniform(0.5, 3, 5000))
    whole = order.indices(1, np.arange(len(order)))
    some = np.random.default_rng(4).permutation(len(order))[:77]
    assert (order.indices(1, some) == whole[some]).all()
    assert order.indices(1, some[:0]).shape == (0,)
