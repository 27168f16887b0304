"""The order is a pure function of (seed, epoch), whatever the ranks and wherever the start."""

import numpy as np
import pytest

from vissl_lite.data.sampler import Order, StepSampler
from vissl_lite.errors import ConfigError


def epoch_of(order, epoch):
    return order.indices(epoch, np.arange(len(order)))


def test_each_epoch_is_a_permutation_of_its_own():
    order = Order([1000], seed=3)
    first, second = epoch_of(order, 0), epoch_of(order, 1)
    assert sorted(first) == sorted(second) == list(range(1000))
    assert (first != second).mean() > 0.99
    assert (first != epoch_of(Order([1000], seed=4), 0)).mean() > 0.99
    assert (epoch_of(order, 0) == first).all()


def test_seeds_do_not_overlap_across_ranks_or_lengths():
    """VISSL's (seed + rank) * epochs made seed 1 on rank 0 equal to seed 0 on rank 1."""
    from vissl_lite.engine.trainer import step_seed

    seeds = {step_seed(s, t, r) for s in range(20) for t in range(20) for r in range(20)}
    assert len(seeds) == 8000


def test_weights_give_each_part_its_exact_share_of_every_epoch():
    order = Order([100, 900], weights=[3, 1], seed=0)
    drawn = [epoch_of(order, epoch) for epoch in range(6)]
    for epoch in drawn:
        assert (epoch < 100).sum() == 750
        assert np.bincount(epoch[epoch < 100]).tolist().count(0) == 0  # 7.5 passes: all are seen
    large = np.concatenate([epoch[epoch >= 100] for epoch in drawn])  # 6 x 250 of 900
    counts = np.bincount(large - 100, minlength=900)
    assert set(counts) == {1, 2}  # full permutations in turn, no image is left out


def test_parts_have_orders_of_their_own_for_every_seed():
    """seed + part made part 1 of seed 0 equal to part 0 of seed 1."""
    seen = []
    for seed in range(3):
        drawn = epoch_of(Order([40, 40, 40], weights=[1, 1, 1], seed=seed), 0)
        sequences = np.argsort(epoch_of(Order([120], seed=seed), 0))  # the draws in turn
        seen += [tuple(drawn[sequences][40 * k : 40 * k + 40] % 40) for k in range(3)]
    assert all(sorted(order) == list(range(40)) for order in seen)
    assert len(set(seen)) == 9


def test_without_weights_a_mixture_is_the_concatenation():
    assert sorted(epoch_of(Order([10, 20], seed=1), 0)) == list(range(30))


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("start", [0, 7])
def test_ranks_take_slices_of_the_global_batch(world, start):
    whole = [r.positions for r in StepSampler(50, 12, 9, start=start, rank=0, world=1)]
    ranks = [StepSampler(50, 12, 9, start=start, rank=r, world=world) for r in range(world)]
    for step, requests in enumerate(zip(*ranks)):
        together = np.concatenate([request.positions for request in requests])
        assert (together == whole[step]).all()
        assert {r.step for r in requests} == {start + step}
        assert {r.epoch for r in requests} == {(start + step) // 4}  # 50 // 12 steps per epoch


def test_a_batch_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="the source has only 8; take at most 8"):
        StepSampler(8, 10, 1, start=0, rank=0, world=1)


def test_a_billion_images_cost_nothing():
    order = Order([10**9], seed=0)
    drawn = order.indices(0, np.arange(5 * 10**8, 5 * 10**8 + 256))
    assert len(set(drawn.tolist())) == 256
    assert drawn.min() >= 0
    assert drawn.max() < 10**9
