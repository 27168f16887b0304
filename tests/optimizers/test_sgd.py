import pytest
import torch
from torch import nn

from vissl_lite import OPTIMIZERS, ConfigError
from vissl_lite.optimizers.sgd import sgd


def naive(p, grads, lrs, momentum, weight_decay, nesterov):
    p, mu = p.detach().clone(), 0.0
    for g, lr in zip(grads, lrs):
        d = g + weight_decay * p
        mu = momentum * mu + d
        p = p - lr * (d + momentum * mu if nesterov else mu)
    return p


@pytest.mark.parametrize("nesterov", [False, True])
def test_equals_the_formula(problem, run, nesterov):
    params, grads = problem
    expected = [
        naive(p, [g[i] for g in grads], [0.5, 0.25, 0.0, 0.1, 0.05, 0.02], 0.8, 0.01, nesterov)
        for i, p in enumerate(params)
    ]
    config = {"name": "sgd", "momentum": 0.8, "nesterov": nesterov, "weight_decay": 0.01}
    optimizer = OPTIMIZERS.build(config, params=[{"params": params}])
    for got, want in zip(run(optimizer, params, grads), expected):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-9)


def test_resumes_bit_for_bit(resumed):
    expected, got = resumed(lambda params: sgd(params=[{"params": params}]))
    assert all(map(torch.equal, got, expected))


def test_settings_of_a_group_come_before_the_entrys():
    groups = [{"params": [nn.Parameter(torch.ones(2))], "lr": 3.0, "weight_decay": 0.5}]
    optimizer = sgd(lr=0.1, weight_decay=0.1, params=groups)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (
        3.0,
        0.5,
    )


def test_runs_fused_and_stays_so_after_a_checkpoint_of_another_kernel():
    make = [{"params": [nn.Parameter(torch.ones(2))]}]
    optimizer = sgd(params=make)
    assert optimizer.param_groups[0]["fused"] is True
    state = optimizer.state_dict()
    state["param_groups"][0].update(fused=False, foreach=True)
    optimizer.load_state_dict(state)
    assert (optimizer.param_groups[0]["fused"], optimizer.param_groups[0]["foreach"]) == (
        True,
        None,
    )


def test_tensors_without_a_fused_kernel_take_torchs_choice():
    params = [{"params": [nn.Parameter(torch.ones(2, device="meta"))]}]
    assert sgd(params=params).param_groups[0]["fused"] is None


def test_nesterov_needs_momentum():
    with pytest.raises(ConfigError, match="nesterov: needs momentum"):
        sgd(momentum=0.0, nesterov=True, params=[{"params": [nn.Parameter(torch.ones(2))]}])


def test_a_parameter_that_is_frozen_at_first_joins_later():
    """SwAV freezes its prototypes for some steps; torch's fused SGD cannot start one alone."""
    early, late = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = OPTIMIZERS.build(
        {"name": "sgd", "lr": 0.1, "momentum": 0.5, "weight_decay": 0.0},
        params=[{"params": [early, late]}],
    )
    for step in range(4):
        early.grad = torch.ones(3)
        late.grad = torch.ones(3) if step >= 2 else None
        optimizer.step()
    torch.testing.assert_close(early.detach(), torch.full((3,), 1 - 0.1 * (1 + 1.5 + 1.75 + 1.875)))
    torch.testing.assert_close(late.detach(), torch.full((3,), 1 - 0.1 * (1 + 1.5)))
