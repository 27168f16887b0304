import pytest
import torch
from torch import nn

from vissl_lite import OPTIMIZERS
from vissl_lite.optimizers.lars import LARS

LRS = [0.5, 0.25, 0.0, 0.1, 0.05, 0.02]


def naive(p, grads, momentum, eta, weight_decay, adapt=True):
    """The loop of Barlow Twins, one tensor at a time."""
    p, mu = p.detach().clone(), torch.zeros_like(p)
    for g, lr in zip(grads, LRS):
        d = g + weight_decay * p
        p_norm, d_norm = p.square().sum().sqrt().item(), d.square().sum().sqrt().item()
        if adapt and p_norm > 0 and d_norm > 0:
            d = d * (eta * p_norm / d_norm)
        mu = momentum * mu + d
        p = p - lr * mu
    return p


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_equals_the_formula(problem, run, weight_decay):
    params, grads = problem
    expected = [
        naive(p, [g[i] for g in grads], 0.8, 0.02, weight_decay) for i, p in enumerate(params)
    ]
    config = {"name": "lars", "momentum": 0.8, "eta": 0.02, "weight_decay": weight_decay}
    optimizer = OPTIMIZERS.build(config, params=[{"params": params}])
    for got, want in zip(run(optimizer, params, grads), expected):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-9)


def test_lars_exclude_takes_plain_steps_with_the_groups_own_decay(problem, run):
    params, grads = problem
    groups = [
        {"params": params[:2], "weight_decay": 0.05},
        {"params": params[2:], "weight_decay": 0.01, "lars_exclude": True},
    ]
    expected = [
        naive(p, [g[i] for g in grads], 0.9, 1e-3, 0.05 if i < 2 else 0.01, adapt=i < 2)
        for i, p in enumerate(params)
    ]
    for got, want in zip(run(LARS(params=groups), params, grads), expected):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-9)


def test_a_parameter_without_gradient_is_left_alone(problem, run):
    params, grads = problem
    grads = [[None, *step[1:]] for step in grads]
    before = params[0].detach().clone()
    optimizer = LARS(weight_decay=0.1, params=[{"params": params[:1]}, {"params": params[1:]}])
    assert torch.equal(run(optimizer, params, grads)[0], before)
    assert params[0] not in optimizer.state


def test_a_step_without_any_gradient_changes_nothing(problem):
    params, _ = problem
    before = [p.detach().clone() for p in params]
    LARS(params=[{"params": params}]).step()
    assert all(map(torch.equal, params, before))


def test_resumes_bit_for_bit(resumed):
    expected, got = resumed(lambda params: LARS(weight_decay=0.01, params=[{"params": params}]))
    assert all(map(torch.equal, got, expected))


def test_returns_the_loss_of_the_closure():
    p = nn.Parameter(torch.tensor([3.0]))
    optimizer = LARS(lr=1.0, momentum=0.0, eta=0.1, weight_decay=0.0, params=[{"params": [p]}])

    def closure():
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9.0
    assert p.item() == pytest.approx(3.0 - 0.1 * 3.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_host_never_waits():
    p = nn.Parameter(torch.randn(8, 4, device="cuda"))
    optimizer = LARS(params=[{"params": [p]}])
    p.grad = torch.randn_like(p)
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert p.isfinite().all()
