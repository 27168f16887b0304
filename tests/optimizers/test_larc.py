import copy

import pytest
import torch
from timm.optim import Lars as TimmLars
from torch import nn

from vissl_lite import OPTIMIZERS, ConfigError
from vissl_lite.optimizers.larc import LARC

LRS = [0.5, 0.25, 0.0, 0.1, 0.05, 0.02]


def naive(p, grads, tc, weight_decay, clip, adapt=True):
    """apex's LARC around SGD with momentum 0.9, one tensor at a time; SGD decays if not adapted."""
    p, mu = p.detach().clone(), torch.zeros_like(p)
    for g, lr in zip(grads, LRS):
        p_norm, g_norm = p.square().sum().sqrt().item(), g.square().sum().sqrt().item()
        if adapt and p_norm != 0 and g_norm != 0:
            rate = tc * p_norm / (g_norm + weight_decay * p_norm + 1e-8)
            if clip:
                rate = min(rate / lr, 1) if lr > 0 else 1
            g = (g + weight_decay * p) * rate
        elif not adapt:
            g = g + weight_decay * p
        mu = 0.9 * mu + g
        p = p - lr * mu
    return p


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_equals_the_formula_of_apex(problem, run, clip, weight_decay):
    params, grads = problem
    expected = [
        naive(p, [g[i] for g in grads], 0.02, weight_decay, clip) for i, p in enumerate(params)
    ]
    config = {"name": "larc", "trust_coefficient": 0.02, "clip": clip, "weight_decay": weight_decay}
    optimizer = OPTIMIZERS.build(config, params=[{"params": params}])
    for got, want in zip(run(optimizer, params, grads), expected):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-9)


@pytest.mark.parametrize("clip", [False, True])
def test_equals_timm_where_gradients_are_not_zero(problem, run, clip):
    grads = [step[:2] + step[4:5] for step in problem[1]]
    params = problem[0][:2] + problem[0][4:5]
    theirs = copy.deepcopy(params)
    timm = TimmLars(theirs, lr=1.0, momentum=0.9, weight_decay=0.05, trust_clip=clip)
    ours = LARC(clip=clip, weight_decay=0.05, params=[{"params": params}])
    steps = [0, 1, 3, 4, 5]  # timm divides by lr, which step 2 has at 0
    for got, want in zip(run(ours, params, grads, steps), run(timm, theirs, grads, steps)):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-9)


def test_lars_exclude_leaves_a_group_to_the_base_with_its_decay(problem, run):
    params, grads = problem
    groups = [
        {"params": params[:2], "weight_decay": 0.05},
        {"params": params[2:], "weight_decay": 0.01, "lars_exclude": True},
    ]
    expected = [
        naive(p, [g[i] for g in grads], 1e-3, 0.05 if i < 2 else 0.01, False, adapt=i < 2)
        for i, p in enumerate(params)
    ]
    for got, want in zip(run(LARC(params=groups), params, grads), expected):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-9)


def test_the_base_is_any_optimizer(problem, run):
    """With clip and a huge trust coefficient nothing is rescaled: AdamW remains."""
    params, grads = problem
    theirs = copy.deepcopy(params)
    adamw = torch.optim.AdamW(theirs, weight_decay=0.0)
    base = {"name": "adamw", "weight_decay": 7.0}
    optimizer = LARC(
        base=base, weight_decay=0.0, clip=True, trust_coefficient=1e9, params=[{"params": params}]
    )
    for got, want in zip(run(optimizer, params, grads), run(adamw, theirs, grads)):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-9)


def test_groups_are_shared_with_the_base_and_keep_their_decay(problem, run):
    params, grads = problem
    optimizer = LARC(params=[{"params": params, "weight_decay": 0.3, "names": ["a"]}])
    run(optimizer, params, grads)
    assert optimizer.param_groups is optimizer.base.param_groups
    assert optimizer.state is optimizer.base.state
    assert optimizer.param_groups[0]["weight_decay"] == 0.3
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups is optimizer.base.param_groups
    assert optimizer.state is optimizer.base.state


def test_a_parameter_without_gradient_is_left_alone(problem, run):
    params, grads = problem
    grads = [[None, *step[1:]] for step in grads]
    before = params[0].detach().clone()
    optimizer = LARC(weight_decay=0.1, params=[{"params": params[:1]}, {"params": params[1:]}])
    assert torch.equal(run(optimizer, params, grads)[0], before)
    assert not optimizer.state[params[0]]["momentum_buffer"].any()


def test_resumes_bit_for_bit(resumed):
    expected, got = resumed(lambda params: LARC(weight_decay=0.01, params=[{"params": params}]))
    assert all(map(torch.equal, got, expected))


def test_half_precision_norms_are_fp32():
    """4,096 values of 16 have the squared norm 2 ** 20, beyond fp16."""
    p = nn.Parameter(torch.full((4096,), 16.0, dtype=torch.float16))
    p.grad = p.detach().clone()
    LARC(lr=1.0, weight_decay=0.0, trust_coefficient=0.5, params=[{"params": [p]}]).step()
    assert torch.equal(p, torch.full_like(p, 8.0))


def test_a_wrong_base_names_its_place():
    with pytest.raises(ConfigError, match=r"optimizer\.base: unknown key 'momentun'.*'momentum'"):
        LARC(
            base={"name": "sgd", "momentun": 0.5},
            params=[{"params": [nn.Parameter(torch.ones(1))]}],
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_host_never_waits():
    p = nn.Parameter(torch.randn(8, 4, device="cuda"))
    optimizer = LARC(params=[{"params": [p]}])
    p.grad = torch.randn_like(p)
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert p.isfinite().all()
