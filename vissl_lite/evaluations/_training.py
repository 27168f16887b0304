"""Training of the networks that evaluations bring: steps, rates, gradients over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vissl_lite.engine.param_groups import EMBEDDINGS
from vissl_lite.engine.trainer import step_seed
from vissl_lite.errors import NonFiniteLoss
from vissl_lite.evaluations._training_kept import Kept
from vissl_lite.parallel.collectives import all_reduce_sum, rank, world_size

if TYPE_CHECKING:
    from vissl_lite.engine.bench import Bench

NOTES = 10  # sentences on the progress of a training
WARMUP_FACTOR = 1e-3  # of the rate at the first step, in Detectron2
DROPS = (2 / 3, 8 / 9)  # 60,000 and 80,000 of 90,000 steps: the "1x" schedule


def fit(
    name: str,
    network: nn.Module,
    loss_of: Callable[[Any], Tensor],
    batches: Callable[[int], Iterable[Any]],
    optimizer: torch.optim.Optimizer,
    rate: Callable[[int], float],
    settings: dict[str, Any],
    bench: Bench,
) -> None:
    """One step per batch, each with the gradient of the batch of all processes.

    Stopped and started again in the same run, it goes on from what it wrote last (`Kept`), with the
    same numbers as if it had not been stopped.

    Args:
        name: of the evaluation, for notes.
        network: what is trained.
        loss_of: the mean over the images of this process, from what `batches` gives.
        batches: those from a step on.
        rate: learning rate of a step, from 0.
        settings: of the evaluation; "iterations" and "seed" among them.

    Raises:
        NonFiniteLoss: the loss of a process became nan or inf.
    """
    scaler = torch.amp.GradScaler(bench.device.type, enabled=bench.numerics.precision == "fp16")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    seed, iterations = settings["seed"], settings["iterations"]
    parts = {"network": network, "optimizer": optimizer, "scaler": scaler}
    kept = Kept(name, parts, settings, bench)
    start = kept.begin()
    for step, batch in enumerate(batches(start), start):
        with _written_before_a_stop(kept, step):
            bench.stop_point()
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.zero_grad()
        with torch.enable_grad(), seeded(step_seed(seed, step, rank()), bench.device):
            loss = loss_of(batch)
            scaler.scale(loss).backward()
        shown = _checked(all_reduce_sum(loss.detach()).item() / world_size(), name, step)
        average_gradients(parameters)
        scaler.step(optimizer)
        scaler.update()
        if (step + 1) * NOTES // iterations > step * NOTES // iterations:
            bench.note(
                f"{name}: iteration {step + 1:,} of {iterations:,}, loss {shown:.4f},"
                f" learning rate {rate(step):.2g}"
            )
        kept.after(step + 1)
    kept.end()


@contextmanager
def _written_before_a_stop(kept: Kept, step: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        kept.after(step, now=True)
        raise


def _checked(loss: float, name: str, step: int) -> float:
    if not torch.tensor(loss).isfinite():
        raise NonFiniteLoss(
            f"{name}: the loss is {loss} at iteration {step + 1:,}; try a smaller"
            f" evaluations.{name}.lr"
        )
    return loss


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Their mean over processes, with one reduction; a missing gradient counts as zeros."""
    if world_size() == 1:
        return
    for p in parameters:
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = all_reduce_sum(torch.cat([grad.flatten() for grad in grads])) / world_size()
    pieces = flat.split([grad.numel() for grad in grads])
    torch._foreach_copy_(grads, [piece.view_as(grad) for piece, grad in zip(pieces, grads)])


def warm_steps(step: int, peak: float, iterations: int, warmup: int) -> float:
    """Detectron2's schedule: linear from peak / 1000, then a tenth after each of two drops."""
    part = min(1.0, step / warmup) if warmup else 1.0
    passed = sum(step >= round(drop * iterations) for drop in DROPS)
    return peak * (WARMUP_FACTOR * (1 - part) + part) * 0.1**passed


def warm_poly(step: int, peak: float, iterations: int, warmup: int) -> float:
    """Linear from peak / warmup, and at the same time linearly towards 0 at the last step."""
    return peak * min(1.0, (step + 1) / max(warmup, 1)) * (1 - step / iterations)


def without_decay_of_norms_and_tokens(
    module: nn.Module, weight_decay: float
) -> list[dict[str, Any]]:
    """Two parameter groups: norm layers, position and class embeddings do not decay."""
    norm_types = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
    groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for child in module.modules():
        for name, p in child.named_parameters(recurse=False):
            if p.requires_grad:
                groups[isinstance(child, norm_types) or name in EMBEDDINGS].append(p)
    return [
        {"params": groups[False], "weight_decay": weight_decay},
        {"params": groups[True], "weight_decay": 0.0},
    ]


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, the global random state follows from the seed; afterwards it is as it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
