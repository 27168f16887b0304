import pytest
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
)

from vissl_lite import SCHEDULES, ConfigError

RISE = {"name": "linear", "start": 0.3, "end": 4.8}
FALL = {"name": "cosine", "start": 4.8, "end": 0.0048}


def build(total_steps=1200, steps_per_epoch=3, **config):
    config = {"name": "composite", "schedules": [RISE, FALL], **config}
    return SCHEDULES.build(config, total_steps=total_steps, steps_per_epoch=steps_per_epoch)


@pytest.mark.parametrize("cosine", ["rescaled", "fixed"])
def test_equals_vissls_swav_schedule(cosine):
    """VISSL's composite is fvcore's; 2.5 % are 10 of 400 epochs."""
    theirs = CompositeParamScheduler(
        [LinearParamScheduler(0.3, 4.8), CosineParamScheduler(4.8, 0.0048)],
        [0.025, 0.975],
        ["rescaled", cosine],
    )
    schedule = build(lengths=[0.025, 0.975], scaling=["rescaled", cosine])
    got = [schedule(t / 1200) for t in range(1200)]
    assert got == pytest.approx([theirs(t / 1200) for t in range(1200)], abs=1e-9)
    assert max(got) == pytest.approx({"rescaled": 4.8, "fixed": 4.7926}[cosine], abs=5e-5)
    assert got.index(max(got)) == 30


def test_all_units_say_the_same():
    schedules = [
        build(lengths=lengths)
        for lengths in (
            ["10 epochs", "rest"],
            ["rest", "1170 steps"],
            [0.025, 0.975],
            ["1e-2", 0.99],
        )
    ]
    values = [[schedule(t / 1200) for t in range(1201)] for schedule in schedules]
    assert values[0] == values[1] == values[2]
    assert values[3] != values[0]


def test_parts_change_at_exact_steps_of_a_long_training():
    parts = [{"name": "constant", "value": v} for v in (1.0, 2.0, 3.0)]
    schedule = build(3_000_000, schedules=parts, lengths=["1000001 steps", "999999 steps", "rest"])
    steps = (0, 1_000_000, 1_000_001, 1_999_999, 2_000_000, 2_999_999, 3_000_000)
    assert [schedule(t / 3_000_000) for t in steps] == [1, 1, 2, 2, 3, 3, 3]


def test_lengths_within_a_rescaled_part_are_its_own():
    inner = {"name": "multistep", "milestones": ["100 epochs"]}
    schedule = build(schedules=["constant", inner], lengths=["50 epochs", "rest"])
    changes = [t for t in range(1, 1200) if schedule(t / 1200) != schedule((t - 1) / 1200)]
    assert changes == [450]


def test_rounded_parts_make_up_the_training():
    """Thirds of 100 steps: 33 + 33, and the last part has the remaining 34."""
    parts = [{"name": "constant", "value": v} for v in (1.0, 2.0, 3.0)]
    schedule = build(100, schedules=parts, lengths=[0.3333, 0.3333, 0.3333])
    values = [schedule(t / 100) for t in range(100)]
    assert [values.count(v) for v in (1.0, 2.0, 3.0)] == [33, 33, 34]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"lengths": [0.5]}, "2 schedules, 1 lengths and 2 scalings"),
        ({"lengths": [0.5, 0.4]}, "1,080 of 1,200 steps; make one of them 'rest'"),
        ({"lengths": ["1 step", "1198 steps"], "total_steps": 1201}, "1,199 of 1,201 steps"),
        ({"lengths": ["rest", "rest"]}, "and only one"),
        ({"lengths": ["300 epochs", "300 epochs"]}, "1,800 of 1,200 steps"),
        ({"lengths": ["10 epoch", "rest"]}, r"schedule\.lengths\[0\]: '10 epoch' is not a length"),
        ({"lengths": ["rest", 0.5], "schedules": ["linear", "cosin"]}, r"schedules\[1\].*'cosine'"),
    ],
)
def test_mistakes(config, message):
    with pytest.raises(ConfigError, match=message):
        build(**config)
