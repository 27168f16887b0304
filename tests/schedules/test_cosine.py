import numpy as np
import pytest
import torch

from vissl_lite import SCHEDULES


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_equals_torch():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=4.8)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40, eta_min=0.0048)
    schedule = SCHEDULES.build({"name": "cosine", "start": 4.8, "end": 0.0048})
    for t in range(41):
        assert schedule(t / 40) == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
        theirs.step()


def test_falls_from_one_to_zero_by_default():
    schedule = SCHEDULES.build("cosine")
    values = [schedule(t / 100) for t in range(101)]
    assert (values[0], values[50], values[100]) == pytest.approx((1.0, 0.5, 0.0), abs=1e-12)
    assert (np.diff(values) < 0).all()


def test_rises_where_the_end_is_higher():
    """DINO's weight decay, as its utils.cosine_scheduler computes it."""
    schedule = SCHEDULES.build({"name": "cosine", "start": 0.04, "end": 0.4})
    t = np.arange(100)
    expected = 0.4 + 0.5 * (0.04 - 0.4) * (1 + np.cos(np.pi * t / 100))
    np.testing.assert_allclose([schedule(i / 100) for i in t], expected, atol=1e-9)
