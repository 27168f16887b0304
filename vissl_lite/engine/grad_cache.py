"""Gradients of large batches on small memory.

Shape suffixes: V crops, B images of this process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from vissl_lite.data.batch import Batch
from vissl_lite.model import Outputs, SSLModel


def backward(
    model: SSLModel,
    forward: Callable[[Sequence[Tensor]], Outputs],
    loss: nn.Module,
    batch: Batch,
    chunk: int,
    *,
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
    accumulating: Callable[[], AbstractContextManager] = contextlib.nullcontext,
    autocast: Callable[[], AbstractContextManager] = contextlib.nullcontext,
) -> tuple[dict[str, Tensor], Outputs]:
    """GradCache: the gradient of a loss on the whole batch, with the activations of one chunk.

        for each chunk c:  z_c = f(x_c)                              # no graph
        g = dL/dz,  L = loss(z_1, ..., z_n)                          # no f in this graph
        for each chunk c:  dL/dw += (dz_c/dw)^T g_c,  z_c = f(x_c)   # again, now with its graph

    It costs one more forward pass. The gradient is that of the whole batch, exactly, as long as f
    treats images one by one. BatchNorm does not: it normalises each chunk with the chunk's own
    statistics (with `sync_bn` those of the same chunk on all processes), as gradient accumulation
    does with micro-batches. The result is the exact gradient of that function.

    The second pass repeats the first: it starts from the same buffers, and each chunk from the same
    state of the random generators (dropout, stochastic depth). Running statistics thus move once
    per chunk. An EMA teacher runs in the first pass only. The loss is called once, so that its
    queues move once per step; the gradient of parameters that it uses itself arises in that call.

    Source: Gao et al. 2021, arXiv 2101.06983, section 3.

    Args:
        model: whose gradients are wanted.
        forward: the model as the training loop calls it, wrapped or not.
        loss: any entry of LOSSES.
        chunk: images with all their crops; the last chunk takes what remains. Chunks cut the batch
            of this process, so that all processes must have equal batches.
        scale: of the loss before its backward pass, for fp16.
        accumulating: context in which `forward` and its backward pass do not reduce gradients over
            processes; entered for every chunk but the last.
        autocast: context for `forward`.

    Returns:
        What the loss returned, as a dict; and the outputs on the whole batch, without a graph.
    """
    chunks = [slice(start, start + chunk) for start in range(0, len(batch), chunk)]
    generators = _generators(batch.views[0].device)
    states: list[list[Tensor]] = []

    def run(images: slice) -> Outputs:
        with autocast():
            return forward([view[:, images] for view in batch.views])

    def first(images: slice) -> Outputs:
        states.append([generator.get_state() for generator in generators])
        return run(images)

    def again(images: slice, state: list[Tensor]) -> Outputs:
        for generator, its in zip(generators, state):
            generator.set_state(its)
        return run(images)

    with torch.no_grad(), _buffers_kept(model):
        outputs = _as_leaves([first(images) for images in chunks])
    losses = loss(outputs, batch)
    losses = losses if isinstance(losses, dict) else {"loss": losses}
    scale(losses["loss"]).backward()
    with _without_teacher(model), torch.random.fork_rng([g.device for g in generators[1:]]):
        for images, state in zip(chunks, states):
            with contextlib.nullcontext() if images is chunks[-1] else accumulating():
                _pull_back(again(images, state), outputs, images)
    return losses, outputs


def _as_leaves(parts: Sequence[Outputs]) -> Outputs:
    """The chunks as one; its tensors, without those of the teacher, collect gradients."""
    outputs = _joined(parts)
    for tensor in _tensors(outputs):
        tensor.requires_grad_()
    return outputs


def _joined(parts: Sequence[Outputs]) -> Outputs:
    teachers = [part.teacher for part in parts if part.teacher is not None]
    return Outputs(
        torch.cat([part.features for part in parts], dim=1),
        torch.cat([part.embedding for part in parts], dim=1),
        [_joined_logits(chunks) for chunks in zip(*(part.logits for part in parts))],
        model=parts[0].model,
        teacher=_joined(teachers) if teachers else None,
    )


def _joined_logits(chunks: tuple[Any, ...]) -> Any:
    """Of tensors [V, b, K]; or of `ShardedLogits`, whose gradient is that of their features."""
    if isinstance(chunks[0], Tensor):
        return torch.cat(chunks, dim=1)
    x_VBD = torch.cat([logits.x_ND.unflatten(0, logits.rows) for logits in chunks], dim=1)
    return replace(chunks[0], x_ND=x_VBD.flatten(0, 1), rows=tuple(x_VBD.shape[:2]))


def _tensors(outputs: Outputs) -> list[Tensor]:
    """Each [V, B, .] or [V * B, .]."""
    logits = [z if isinstance(z, Tensor) else z.x_ND for z in outputs.logits]
    return [outputs.features, outputs.embedding, *logits]


def _pull_back(again: Outputs, outputs: Outputs, images: slice) -> None:
    """Takes the gradients of the `outputs` of one chunk through the graph of `again`."""
    ends, grads, rows = [], [], outputs.features.shape[:2]
    for y, leaf in zip(_tensors(again), _tensors(outputs)):
        if y.requires_grad and leaf.grad is not None:
            ends.append(y)
            grads.append(leaf.grad.view(*rows, -1)[:, images].reshape(y.shape))
    torch.autograd.backward(ends, grads)


@contextlib.contextmanager
def _without_teacher(model: SSLModel) -> Iterator[None]:
    teacher, model.teacher = model.teacher, None
    try:
        yield
    finally:
        model.teacher = teacher


@contextlib.contextmanager
def _buffers_kept(model: SSLModel) -> Iterator[None]:
    """Afterwards the buffers hold what they held before; those of the teacher stay as they are."""
    with _without_teacher(model):
        buffers = list(model.buffers())
    before = [buffer.clone() for buffer in buffers]
    yield
    torch._foreach_copy_(buffers, before)


def _generators(device: torch.device) -> list[Generator]:
    """The generators that a forward pass draws from, the CPU's first."""
    own = [torch.cuda.default_generators[device.index]] if device.type == "cuda" else []
    return [torch.default_generator, *own]
