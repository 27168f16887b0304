import torch

from vissl_lite import OPTIMIZERS
from vissl_lite.optimizers.adamw import adamw


def naive(p, grads, lrs, betas, eps, weight_decay):
    p, m, v = p.detach().clone(), 0.0, 0.0
    for t, (g, lr) in enumerate(zip(grads, lrs), start=1):
        p = p - lr * weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        p = p - lr * (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)) ** 0.5 + eps)
    return p


def test_equals_the_formula(problem, run):
    params, grads = problem
    lrs = [0.5, 0.25, 0.0, 0.1, 0.05, 0.02]
    expected = [
        naive(p, [g[i] for g in grads], lrs, (0.8, 0.9), 1e-6, 0.04) for i, p in enumerate(params)
    ]
    config = {"name": "adamw", "betas": [0.8, 0.9], "eps": 1e-6, "weight_decay": 0.04}
    optimizer = OPTIMIZERS.build(config, params=[{"params": params}])
    for got, want in zip(run(optimizer, params, grads), expected):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-9)


def test_resumes_bit_for_bit(resumed):
    expected, got = resumed(lambda params: adamw(params=[{"params": params}]))
    assert all(map(torch.equal, got, expected))


def test_a_checkpoint_of_the_unfused_kernel_loads_into_the_fused_one(problem, run):
    params, grads = problem
    unfused = torch.optim.AdamW(params, lr=0.1, foreach=False)
    run(unfused, params, grads, range(2))
    optimizer = adamw(params=[{"params": params}])
    optimizer.load_state_dict(unfused.state_dict())
    assert optimizer.param_groups[0]["fused"] is True
    run(optimizer, params, grads, range(2, 6))
    assert optimizer.state[params[0]]["step"].item() == 6
