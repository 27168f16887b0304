"""Parameters, gradients and the loop that every optimizer test shares."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vissl_lite.optimizers import adamw, larc, lars, sgd  # noqa: F401  (registers them)

SHAPES = [(4, 3), (4,), (2, 3, 3, 3), (5, 4), (), (6, 2)]
LR = [0.5, 0.25, 0.0, 0.1, 0.05, 0.02]


@pytest.fixture
def problem() -> tuple[list[nn.Parameter], list[list[Tensor]]]:
    """Six float64 parameters and their gradients in 6 steps; |p| = 0 in number 3, |g| = 0 in 5."""
    rng = torch.Generator().manual_seed(1)

    def draw() -> list[Tensor]:
        return [torch.randn(shape, generator=rng, dtype=torch.float64) for shape in SHAPES]

    params, grads = [nn.Parameter(p) for p in draw()], [draw() for _ in LR]
    params[3].data.zero_()
    for step in grads:
        step[5].zero_()
    return params, grads


@pytest.fixture
def run() -> Callable:
    """`run(optimizer, params, grads, steps)`: a step for each of `steps`, with its own lr."""

    def take(optimizer, params: list, grads: list, steps: range = range(len(LR))) -> list[Tensor]:
        for i in steps:
            for p, g in zip(params, grads[i]):
                p.grad = None if g is None else g.clone()
            for group in optimizer.param_groups:
                group["lr"] = LR[i]
            optimizer.step()
        return [p.detach().clone() for p in params]

    return take


@pytest.fixture
def resumed(problem, run, tmp_path: Path) -> Callable:
    """`resumed(make)` -> parameters after 6 steps, and after 3 steps, a file, and 3 more steps."""

    def compare(make: Callable) -> tuple[list[Tensor], list[Tensor]]:
        params, grads = problem
        straight, halfway = copy.deepcopy(params), copy.deepcopy(params)
        expected = run(make(straight), straight, grads)
        optimizer = make(halfway)
        run(optimizer, halfway, grads, range(3))
        torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
        fresh = make(halfway)
        fresh.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
        return expected, run(fresh, halfway, grads, range(3, 6))

    return compare
