import pytest
import torch

from vissl_lite import SCHEDULES, ConfigError


def build(total_steps=900, steps_per_epoch=10, **config):
    return SCHEDULES.build(
        {"name": "multistep", **config}, total_steps=total_steps, steps_per_epoch=steps_per_epoch
    )


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_equals_torch():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [300, 600, 800], gamma=0.2)
    schedule = build(milestones=["30 epochs", "600 steps", 0.8888888], gamma=0.2)
    for t in range(900):
        assert schedule(t / 900) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
        theirs.step()
    assert schedule(1.0) == pytest.approx(0.008)


def test_values_instead_of_gamma():
    schedule = build(milestones=["30 epochs"], values=[0.4, 0.1])
    assert [schedule(t / 900) for t in (0, 299, 300, 899)] == [0.4, 0.4, 0.1, 0.1]


def test_changes_at_the_exact_step_of_a_long_training():
    """3 million steps: fvcore's tolerance of 1e-6 would change 3 steps early."""
    schedule = build(total_steps=3_000_000, milestones=["1000001 steps"])
    assert [schedule(t / 3_000_000) for t in (1_000_000, 1_000_001)] == [1.0, 0.1]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"milestones": ["60 epochs", "30 epochs"]}, "do not rise"),
        ({"milestones": ["100 epochs"]}, r"milestones\[0\]: '100 epochs' are 1,000 steps .* 900"),
        ({"milestones": [0.5], "values": [1.0]}, "1 values for 1 milestones"),
    ],
)
def test_mistakes(config, message):
    with pytest.raises(ConfigError, match=message):
        build(**config)
