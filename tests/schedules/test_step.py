import pytest
from fvcore.common.param_scheduler import StepWithFixedGammaParamScheduler

from vissl_lite import SCHEDULES, ConfigError


@pytest.mark.parametrize("total_steps", [110, 137])
def test_equals_fvcore(total_steps):
    theirs = StepWithFixedGammaParamScheduler(3.15, 10, 0.5, total_steps)
    schedule = SCHEDULES.build({"name": "step", "start": 3.15}, total_steps=total_steps)
    for t in range(total_steps):
        assert schedule(t / total_steps) == pytest.approx(theirs(t / total_steps), rel=1e-12)
    assert schedule(1.0) == 3.15 * 0.5**10


def test_num_decays_is_not_negative():
    with pytest.raises(ConfigError, match=r"schedule\.num_decays: -1 is negative"):
        SCHEDULES.build({"name": "step", "num_decays": -1}, total_steps=10)
