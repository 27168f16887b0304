import math

import numpy as np
import pytest

from vissl_lite import SCHEDULES, ConfigError

ITERATIONS, EPOCHS, WARM = 20, 40, 10  # per epoch, in all, of the warm-up


def build(**config):
    return SCHEDULES.build(
        {"name": "warmup", **config}, total_steps=ITERATIONS * EPOCHS, steps_per_epoch=ITERATIONS
    )


def official_swav(base_lr=4.8, final_lr=0.0048, start_warmup=0.3):
    """The array that main_swav.py builds before training (arXiv 2006.09882)."""
    rise = np.linspace(start_warmup, base_lr, ITERATIONS * WARM)
    iters = np.arange(ITERATIONS * (EPOCHS - WARM))
    angle = math.pi * iters / (ITERATIONS * (EPOCHS - WARM))
    fall = [final_lr + 0.5 * (base_lr - final_lr) * (1 + math.cos(a)) for a in angle]
    return np.concatenate([rise, fall])


def test_official_swav_schedule():
    """Equal after the warm-up; during it linspace, which has both ends, is ahead by < 4.5 / 200."""
    schedule = build(length="10 epochs", start=0.0625, then={"name": "cosine", "end": 0.001})
    got = np.array([4.8 * schedule(t / 800) for t in range(800)])
    theirs = official_swav()
    np.testing.assert_allclose(got[200:], theirs[200:], atol=1e-9)
    assert (theirs[:200] - got[:200]).min() >= 0
    assert (theirs[:200] - got[:200]).max() == pytest.approx(4.5 / 200, abs=1e-9)


def test_equals_the_formula():
    schedule = build(length="50 steps", start=0.1)
    for t in range(801):
        want = 0.1 + 0.9 * t / 50 if t < 50 else 0.5 * (1 + math.cos(math.pi * (t - 50) / 750))
        assert schedule(t / 800) == pytest.approx(want, abs=1e-9)


def test_rises_then_falls():
    schedule = build(length=0.25)
    values = [schedule(t / 800) for t in range(801)]
    assert values[0] == 0.0
    assert (values[200], values[800]) == pytest.approx((1.0, 0.0), abs=1e-12)
    assert (np.diff(values[:201]) > 0).all()
    assert (np.diff(values[200:]) < 0).all()


def test_fixed_shows_the_position_in_the_whole_training():
    """Milestones count from step 0 (Goyal et al.); rescaled, from the end of the warm-up."""
    then = {"name": "multistep", "milestones": ["20 epochs"]}
    at = {}
    for scaling in ("fixed", "rescaled"):
        schedule = build(length="10 epochs", then=then, scaling=scaling)
        at[scaling] = next(t for t in range(200, 800) if schedule(t / 800) < 1)
    assert at == {"fixed": 400, "rescaled": 600}


def test_fixed_rises_to_the_value_that_follows():
    schedule = build(length=0.025, scaling="fixed")
    peak = 0.5 * (1 + math.cos(math.pi * 0.025))
    assert schedule(20 / 800) == pytest.approx(peak, abs=1e-12)
    assert schedule(19 / 800) == pytest.approx(peak * 19 / 20, abs=1e-12)


def test_no_steps_of_warm_up_leave_then_alone():
    assert build(length=0)(0.0) == 1.0


def test_may_fill_the_training_but_not_exceed_it():
    assert build(length="40 epochs")(799 / 800) == pytest.approx(799 / 800)
    with pytest.raises(ConfigError, match=r"'50 epochs' are 1,000 steps but the training has 800"):
        build(length="50 epochs")
