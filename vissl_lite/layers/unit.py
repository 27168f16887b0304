"""A block of a network: the piece that is checkpointed, compiled and sharded as a whole."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from vissl_lite.parallel import collectives

Checkpointing = Literal["none", "selective", "block"]

aten = torch.ops.aten
KEPT = {  # by selective checkpointing: what takes long to compute, and what was communicated
    aten.convolution.default,
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
    collectives.all_reduce_sum._opoverload,
}


class Unit(nn.Module):
    """Maps crops, one tensor per resolution, to as many; a single tensor to a single tensor.

    All resolutions go through a unit before the next one begins, so that sharded weights are
    gathered once per step and one compiled graph serves them all. A subclass writes `block`.

    Attributes:
        checkpointing: what the backward pass computes again: "none"; "selective", everything but
            convolutions, matrix products, attention and reductions over processes; "block", all.
    """

    checkpointing: Checkpointing = "none"

    def block(self, x: Tensor) -> Tensor:
        """What the unit does with the crops of one resolution."""
        raise NotImplementedError

    def forward(self, crops: Tensor | Sequence[Tensor]) -> Any:
        run = partial(checkpointed, self.block, self.checkpointing)
        return run(crops) if isinstance(crops, Tensor) else [run(x) for x in crops]


def checkpointed(function: Callable, mode: Checkpointing, *args: Any, **kwargs: Any) -> Any:
    """`function(*args, **kwargs)`, keeping for its backward only what `mode` says; see `Unit`."""
    if mode == "none" or not torch.is_grad_enabled():
        return function(*args, **kwargs)
    if mode == "block":
        return checkpoint(function, *args, use_reentrant=False, **kwargs)
    with _without_autocast_cache():
        return checkpoint(function, *args, use_reentrant=False, context_fn=_selective, **kwargs)


@contextmanager
def _without_autocast_cache() -> Iterator[None]:
    """Selective checkpointing counts operators, also the cast of a weight that a cache may hold."""
    if torch.compiler.is_compiling():  # traced without that cache; torch 2.11 fails at the rest
        yield
        return
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def _selective() -> tuple[AbstractContextManager, AbstractContextManager]:
    return create_selective_checkpoint_contexts(_policy)


def _policy(ctx: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    kept = operator in KEPT
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
