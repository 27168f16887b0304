"""What a training step keeps in memory and computes, found with fake tensors: nothing is allocated.

A trace is a list of events of one forward and backward pass on one process that holds the whole
model, with the live bytes at each event and the peak until the next one. How a strategy spreads
weights and gradients is added by replaying it (`memory.py`).
"""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from vissl_lite.data.batch import Batch
from vissl_lite.layers.norm import recomputing
from vissl_lite.plan.fakes import fake_batch, materialise

aten, prim, c10d = torch.ops.aten, torch.ops.prim, torch.ops.c10d
GATHERS = (c10d._allgather_base_.default, c10d._reduce_scatter_base_.default)
Bytes = dict[str, int]
ACTIVATIONS, LOSS, CASTS, GRADIENTS = "activations", "loss", "casts", "gradients"


@dataclass
class Event:
    """Something that a sharding engine reacts to.

    Attributes:
        kind: "pre_forward", "post_forward", "pre_backward", "post_backward" of a group, "start",
            "end_forward", "end_backward" of the pass.
        group: index of the group; -1 for the root.
        live: bytes by category when it happens.
        peak: bytes by category when their sum is largest, from then until the next event.
    """

    kind: str
    group: int
    live: Bytes
    peak: Bytes


@dataclass
class Trace:
    """One forward and backward pass.

    Attributes:
        events: in their order.
        flops: of convolutions and matrix products, 2 per multiply-add, recomputation included.
        moved: bytes that all other operators read and write.
        calls: collectives of the model (SyncBN), as ACTIVATIONS, and of the LOSS.
        sent: bytes of them that a process receives, times W / (W - 1) of its W processes.
        buffers: bytes of the buffers of model and loss.
        inputs: bytes of the images.
    """

    events: list[Event] = field(default_factory=list)
    flops: float = 0.0
    moved: float = 0.0
    calls: dict[str, int] = field(default_factory=lambda: {ACTIVATIONS: 0, LOSS: 0})
    sent: Bytes = field(default_factory=lambda: {ACTIVATIONS: 0, LOSS: 0})
    buffers: int = 0
    inputs: int = 0


class Tracker(TorchDispatchMode):
    """Follows every storage from the operator that makes it to its end."""

    def __init__(self, known: Sequence[Tensor]):
        super().__init__()
        self.trace, self.category = Trace(), ACTIVATIONS
        self._live: Counter[str] = Counter()
        self._storages: dict[int, tuple[int, str | None, Any]] = {}
        self._weights = {t.untyped_storage()._cdata for t in known if t.requires_grad}
        self._total = self._highest = 0
        for t in known:
            self._remember(t, None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is prim.device.default:  # asked ten thousand times
            return args[0].fake_device
        out = func(*args, **(kwargs or {}))
        outs = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        cast_weight = func is aten._to_copy.default and self._key(args[0]) in self._weights
        for t in outs:
            self._remember(t, CASTS if cast_weight else self.category)
        self._count(func, args, kwargs or {}, out, outs)
        return out

    def event(self, kind: str, group: int = -1) -> None:
        live = dict(self._live)
        self.trace.events.append(Event(kind, group, live, live))
        self._highest = self._total

    def is_gradient(self, p: nn.Parameter) -> None:
        """The gradient that `p` has got is no activation any more."""
        key = self._key(cast(Tensor, p.grad))
        size, category, ref = self._storages[key]
        self._storages[key] = size, GRADIENTS, ref
        self._add(category, -size)
        self._add(GRADIENTS, size)

    def _count(self, func: Any, args: Any, kwargs: Any, out: Any, outs: list[Tensor]) -> None:
        if func is aten.convolution_backward.default:
            self.trace.flops += _conv_backward_flops(*args)
        elif func._overloadpacket in flop_registry:
            self.trace.flops += flop_registry[func._overloadpacket](*args, **kwargs, out_val=out)
        elif func is torch.ops.vissl_lite.all_reduce_sum.default:
            self._sent(2 * outs[0].nbytes)
        elif func in GATHERS:
            self._sent(max(t.nbytes for t in args if isinstance(t, Tensor)))  # that of all ranks
        elif outs and not func.is_view:  # prim.device and the like have no tensors as result
            ins = [t for t in tree_leaves(args) if isinstance(t, Tensor)]
            self.trace.moved += sum(t.nbytes for t in ins + outs)

    def _sent(self, size: int) -> None:
        self.trace.calls[self.category] += 1
        self.trace.sent[self.category] += size

    @staticmethod
    def _key(t: Tensor) -> int:
        return t.untyped_storage()._cdata

    def _remember(self, t: Tensor, category: str | None) -> None:
        storage = t.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        ref = weakref.ref(storage, lambda _: self._forget(key))
        self._storages[key] = storage.nbytes(), category, ref
        self._add(category, storage.nbytes())

    def _forget(self, key: int) -> None:
        size, category, _ = self._storages.pop(key)
        self._add(category, -size)

    def _add(self, category: str | None, size: int) -> None:
        if category is None:
            return
        self._live[category] += size
        self._total += size
        if self._total > self._highest and self.trace.events:
            self._highest = self._total
            self.trace.events[-1].peak = dict(self._live)


def _conv_backward_flops(grad: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> int:
    """Torch's own count is too high for grouped convolutions."""
    wanted = sum(rest[-1][:2])  # gradient of the input, of the weight
    return 2 * wanted * grad.numel() * weight[0].numel()


class _Mark(torch.autograd.Function):
    """Identity whose backward says that the gradients of all inputs of a module are there.

    FSDP2 does the same.
    """

    @staticmethod
    def forward(ctx: Any, done: Callable[[], None], *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.done = done
        return inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ctx.done()
        return None, *grads


class _GroupHooks:
    """Turns what happens to one module into events; at the end of its backward it drops gradients.

    Args:
        drop: its parameters.
    """

    def __init__(self, tracker: Tracker, index: int, module: nn.Module, drop: list[nn.Parameter]):
        self.tracker, self.index, self.drop, self.in_backward = tracker, index, drop, False
        module.register_forward_pre_hook(self._before, prepend=True)
        module.register_forward_hook(self._after)

    def _before(self, module: nn.Module, args: Any) -> Any:
        self.tracker.event("pre_forward", self.index)
        tensors = [t for t in tree_leaves(args) if isinstance(t, Tensor) and t.requires_grad]
        if not tensors or not torch.is_grad_enabled():
            return args
        marked = dict(zip(map(id, tensors), _Mark.apply(self._post_backward, *tensors)))
        return tree_map_only(Tensor, lambda t: marked.get(id(t), t), args)

    def _after(self, module: nn.Module, args: Any, out: Any) -> None:
        self.tracker.event("post_forward" if not recomputing() else "recomputed", self.index)
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and t.requires_grad:
                t.register_hook(self._pre_backward)

    def _pre_backward(self, grad: Tensor) -> None:
        if not self.in_backward:
            self.in_backward = True
            self.tracker.category = ACTIVATIONS  # the loss is behind us
            self.tracker.event("pre_backward", self.index)

    def _post_backward(self) -> None:
        self.tracker.event("post_backward", self.index)
        self.in_backward = False
        for p in self.drop:
            p.grad = None


def trace_step(
    model: Any,
    loss: nn.Module,
    groups: Sequence[tuple[nn.Module, bool]],
    sizes: Sequence[tuple[int, int]],
    images: int,
    precision: str,
    gathered: bool,
) -> Trace:
    """One forward and backward pass on a fake batch.

    Args:
        model, loss: on the meta device; they are changed and of no use afterwards.
        groups: modules that are sharded as one, and whether they compute in 16 bit; see
            `layout.modules_of`.
        sizes: (crops, pixels) of each view group.
        gathered: weights of groups are in 16 bit, and their gradients go with their group, as
            under FSDP2; otherwise weights are fp32, cast by autocast, and gradients stay.
    """
    low = torch.float32 if precision == "fp32" else torch.bfloat16
    owned: list[list[nn.Parameter]] = []
    seen: set[nn.Parameter] = set()
    for module, _ in groups:
        owned.append([p for p in module.parameters() if p not in seen])
        seen.update(owned[-1])
    with FakeTensorMode(allow_non_fake_inputs=True):
        names = {p: n for n, p in model.named_parameters()}
        dtypes = {
            p: low for (_, is_low), own in zip(groups, owned) for p in own if gathered and is_low
        }
        owned_names = [[names[p] for p in own] for own in owned]
        materialise(model, dtypes)
        materialise(loss, {})
        batch = fake_batch(sizes, images)
        gc.freeze()  # what exists needs no looking at while many small objects come and go
        try:
            modules = [module for module, _ in groups]
            return _run(model.train(), loss, modules, owned_names, batch, low, gathered)
        finally:
            gc.unfreeze()


def _run(
    model: Any,
    loss: nn.Module,
    modules: list[nn.Module],
    owned_names: list[list[str]],
    batch: Batch,
    low: torch.dtype,
    gathered: bool,
) -> Trace:
    weights = dict(model.named_parameters())
    buffers = [*model.buffers(), *loss.buffers()]
    tracker = Tracker([*weights.values(), *loss.parameters(), *buffers, *batch.views])
    for p in weights.values():
        if p.requires_grad:
            p.register_post_accumulate_grad_hook(tracker.is_gradient)
    for i, (module, own) in enumerate(zip(modules, owned_names)):
        _GroupHooks(tracker, i, module, [weights[n] for n in own] if gathered else [])
    with tracker:
        tracker.event("start")
        with torch.autocast("cpu", low, enabled=low != torch.float32):
            outputs = model(batch.views)
        tracker.event("end_forward")
        tracker.category = LOSS
        losses = loss(outputs, batch)
        (losses["loss"] if isinstance(losses, dict) else losses).backward()
        tracker.event("end_backward")
    tracker.trace.buffers = sum(b.nbytes for b in buffers)
    tracker.trace.inputs = sum(v.nbytes for v in batch.views)
    return tracker.trace
