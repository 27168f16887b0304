"""Metrics are means over steps and ranks, read at once; the first bad step is known."""

import pytest
import torch

from vissl_lite.engine.meters import Meters

CPU = torch.device("cpu")


def flushed(rank, world, bad_rank):
    meters = Meters(CPU)
    for step in range(5):
        loss = torch.tensor(float(step + 10 * rank))
        if rank == bad_rank and step in (2, 4):
            loss = torch.tensor(torch.nan)
        meters.add({"loss": loss, "rank": torch.tensor(float(rank))}, step)
    return meters.flush()


def test_means_over_steps():
    means, bad = flushed(0, 1, bad_rank=None)
    assert means == {"loss": 2.0, "rank": 0.0}
    assert bad is None


def test_means_over_ranks(ranks):
    for means, bad in ranks(2)(flushed, None):
        assert means == {"loss": pytest.approx(7.0), "rank": 0.5}
        assert bad is None


def test_the_first_bad_step_of_any_rank_is_known_to_all(ranks):
    assert flushed(0, 1, bad_rank=0)[1] == 2
    assert [bad for _, bad in ranks(2)(flushed, 1)] == [2, 2]


def test_half_an_interval_survives_a_resume():
    whole, first, second = Meters(CPU), Meters(CPU), Meters(CPU)
    for step in range(4):
        whole.add({"loss": torch.tensor(float(step))}, step)
        (first if step < 2 else second).add({"loss": torch.tensor(float(step))}, step)
        if step == 1:
            second.load_state_dict(first.state_dict())
    assert second.flush() == whole.flush()


def test_metrics_of_the_host_join_those_of_the_device():
    """As the norm of offloaded gradients; the meta device stands for the GPU."""
    meters = Meters(torch.device("meta"))
    meters.add({"loss": torch.ones((), device="meta"), "grad_norm": torch.ones(())}, 0)
    assert {value.device.type for value in meters.sums.values()} == {"meta"}
