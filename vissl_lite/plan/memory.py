"""Memory and traffic of one process for a strategy: a trace replayed as FSDP2 or DDP would act.

Rules of FSDP2 (torch 2.11 to 2.15, `_fsdp_param_group.py`), W ranks that share one copy:

    before a group's forward    gather: a flat buffer of W shards, copied out into the weights; the
                                buffer stays until the next group's copy
    after it                    drop the weights, unless they are kept (ddp, zero2)
    before its backward         gather again, and start to gather the one before it
    after its backward          drop the weights; gradients are copied into a flat fp32 buffer,
                                which stays until the next one, and are reduced into shards
    root                        gathered in fp32 from the first forward to the end of the backward
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace

from vissl_lite.plan.layout import Group, Layout
from vissl_lite.plan.trace import ACTIVATIONS, CASTS, GRADIENTS, LOSS, Bytes, Trace

PARTS = (
    "parameters",
    "gradients",
    "optimizer",
    "activations",
    "loss",
    "buffers",
    "communication",
)
FP32 = 4


@dataclass(frozen=True)
class Setting:
    """What memory and traffic depend on besides trace and layout.

    Attributes:
        strategy: of `parallel.strategy`, or "single" for one process without a wrapper.
        world: processes.
        shard: processes that share one copy of the model.
        low: bytes of a gathered value: 2, or 4 with precision fp32.
        state: bytes of optimizer state per byte of trainable parameters.
        scratch: bytes that the optimizer's step takes for a moment, likewise.
        accumulate: micro-batches per step.
        offload: shards live in host memory.
        norm_ranks: processes that share the statistics of BatchNorm.
    """

    strategy: str
    world: int
    shard: int
    low: int
    state: float
    scratch: float
    accumulate: int = 1
    offload: bool = False
    norm_ranks: int = 1

    @property
    def keep_weights(self) -> bool:
        return self.strategy in ("ddp", "zero2")


@dataclass(frozen=True)
class Traffic:
    """Bytes per step that this process receives, and the number of collectives.

    Attributes:
        shard: among the processes that share one copy: gathering weights, scattering gradients.
        replicate: among the copies: summing gradients.
        norm: among those that share the statistics of BatchNorm.
        loss: among all: what the loss sums and gathers.
    """

    shard: float = 0.0
    replicate: float = 0.0
    norm: float = 0.0
    loss: float = 0.0
    shard_calls: int = 0
    replicate_calls: int = 0
    norm_calls: int = 0
    loss_calls: int = 0

    @property
    def total(self) -> float:
        return self.shard + self.replicate + self.norm + self.loss


@dataclass(frozen=True)
class Cost:
    """Bytes at the peak by part, and the traffic of a step."""

    parts: Bytes
    traffic: Traffic

    @property
    def peak(self) -> int:
        return sum(self.parts.values())


def cost(trace: Trace, layout: Layout, setting: Setting) -> Cost:
    """The peak of the second and later steps, when the optimizer has its state."""
    sharded = setting.strategy not in ("single", "reference_ddp")
    replay = _Sharded(trace, layout, setting) if sharded else _Whole(trace, layout, setting)
    replay.run()
    return Cost({part: round(replay.best[part]) for part in PARTS}, replay.traffic())


class _Replay:
    """What both replays share: the fixed part and the best candidate for the peak."""

    def __init__(self, trace: Trace, layout: Layout, setting: Setting):
        self.trace, self.layout, self.setting = trace, layout, setting
        self.best: Counter[str] = Counter()
        shard, classes = setting.shard, layout.classes
        own = (*layout.groups, layout.root)
        self.stored = sum(g.shard(shard) for g in own) + classes.shard(setting.world)
        self.trained = sum(g.shard(shard, True) for g in own) + classes.shard(setting.world, True)
        device = 0 if setting.offload else FP32
        self.fixed = Counter(
            parameters=device * self.stored,
            optimizer=round(device * self.trained * setting.state),
            buffers=trace.buffers + 2 * trace.inputs,  # a batch ahead, see data/loader.py
        )

    def candidate(self, now: Bytes, **more: float) -> None:
        """A moment that may be the peak: live bytes of the trace, and what the engine holds."""
        parts = Counter(self.fixed)
        parts["activations"] += now.get(ACTIVATIONS, 0) + now.get(CASTS, 0)
        parts["loss"] += now.get(LOSS, 0)
        parts["gradients"] += now.get(GRADIENTS, 0)
        parts.update(more)
        if sum(parts.values()) > sum(self.best.values()):
            self.best = parts

    def optimizer_step(self) -> None:
        if not self.setting.offload:
            scratch = FP32 * self.trained * self.setting.scratch
            self.candidate({}, gradients=FP32 * self.trained, optimizer=scratch)

    def traffic(self) -> Traffic:
        calls, sent, micro = self.trace.calls, self.trace.sent, self.setting.accumulate
        norm, world = self.setting.norm_ranks, self.setting.world
        return Traffic(
            norm=micro * sent[ACTIVATIONS] * (norm - 1) / norm,
            loss=micro * sent[LOSS] * (world - 1) / world,
            norm_calls=micro * calls[ACTIVATIONS],
            loss_calls=micro * calls[LOSS],
        )


class _Whole(_Replay):
    """Every process holds everything: one process, or DistributedDataParallel.

    DDP's gradients are views of its buckets, which are never freed; a new gradient stands beside
    them for a moment.
    """

    def run(self) -> None:
        buckets = self.setting.strategy == "reference_ddp"
        for event in self.trace.events:
            now = event.peak
            if buckets:
                fresh = FP32 * max(group.largest for group in self.layout.all)
                now = {**now, GRADIENTS: FP32 * self.trained}
                self.candidate(now, communication=fresh if event.kind == "pre_backward" else 0)
            else:
                self.candidate(now)
        self.optimizer_step()

    def traffic(self) -> Traffic:
        world = self.setting.world
        size = FP32 * self.trained
        calls = -(-size // (25 * 2**20)) if world > 1 else 0  # DDP's bucket size
        ring = 2 * (world - 1) / world
        return replace(super().traffic(), replicate=ring * size, replicate_calls=calls)


class _Sharded(_Replay):
    """FSDP2; see the top of this file."""

    def __init__(self, trace: Trace, layout: Layout, setting: Setting):
        super().__init__(trace, layout, setting)
        self.gathered: dict[int, int] = {}  # weights, by group
        self.flat: dict[int, int] = {}  # gathered, not yet copied out
        self.held = 0  # a flat buffer that waits for the next copy
        self.scattered = 0  # the last flat buffer of gradients
        self.reduced = 0  # values of gradients that are reduced
        self.order: list[int] = []  # of the forward; a part of a unit runs once per resolution
        self.places: defaultdict[int, list[int]] = defaultdict(list)  # in that order
        self.done: set[int] = set()
        self.bytes: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()

    def run(self) -> None:
        micro = self.setting.accumulate > 1
        if micro:  # gradients of earlier micro-batches, whole
            self.fixed["gradients"] += FP32 * self.layout.parameters(trainable=True)
        for event in self.trace.events:
            getattr(self, f"_{event.kind}")(event.group, event.live)
            self._candidate(event.peak)
        self.optimizer_step()

    def group(self, index: int) -> Group:
        return self.layout.root if index < 0 else self.layout.groups[index]

    def _candidate(self, now: Bytes, more: float = 0.0) -> None:
        held = sum(self.gathered.values()) + sum(self.flat.values()) + self.held + self.scattered
        device = 0 if self.setting.offload else FP32
        gradients = device * self.reduced + now.get(GRADIENTS, 0)
        self.candidate({**now, GRADIENTS: round(gradients)}, communication=held + more)

    def _size(self, index: int) -> int:
        group = self.group(index)
        return (self.setting.low if group.low else FP32) * group.padded(self.setting.shard)

    def _gather(self, index: int, live: Bytes) -> None:
        if index in self.gathered or index in self.flat:
            return
        ranks, size = self.setting.shard, self._size(index)
        if ranks > 1 and size:
            self.flat[index] = size
            self._send("gather", size * (ranks - 1) / ranks)
            cast = size / ranks if self.group(index).low and self.setting.low < FP32 else 0
            self._candidate(live, cast)

    def _copy_out(self, index: int, live: Bytes, forward: bool) -> None:
        if index in self.gathered:
            return
        if forward:
            self.held = 0
        self.gathered[index] = self._size(index)
        self._candidate(live)
        flat = self.flat.pop(index, 0)
        if forward:
            self.held = flat

    def _start(self, index: int, live: Bytes) -> None:
        self._pre_forward(index, live)

    def _pre_forward(self, index: int, live: Bytes) -> None:
        self._gather(index, live)
        self._copy_out(index, live, forward=True)

    def _post_forward(self, index: int, live: Bytes) -> None:
        self.places[index].append(len(self.order))
        self.order.append(index)
        if not self.setting.keep_weights:
            self.gathered.pop(index, None)

    def _recomputed(self, index: int, live: Bytes) -> None:
        """The weights stay for the backward that follows."""

    def _end_forward(self, index: int, live: Bytes) -> None:
        self.held = 0

    def _pre_backward(self, index: int, live: Bytes) -> None:
        self._gather(index, live)
        self._copy_out(index, live, forward=False)
        places = self.places[index]
        if places and (place := places.pop()) > 0:
            self._gather(self.order[place - 1], live)

    def _post_backward(self, index: int, live: Bytes) -> None:
        ranks, group = self.setting.shard, self.group(index)
        self.gathered.pop(index, None)
        self.scattered = FP32 * group.padded(ranks, trainable=True)
        self._candidate(live)
        if index not in self.done:  # a second gradient is added to the first
            self.reduced += group.shard(ranks, trainable=True)
        self.done.add(index)
        self._send("scatter", self.scattered * (ranks - 1) / ranks)
        copies = self.setting.world // ranks
        self._send("sum", 2 * (copies - 1) / copies * FP32 * group.shard(ranks, trainable=True))

    def _end_backward(self, index: int, live: Bytes) -> None:
        for late in [*(i for i in range(len(self.layout.groups)) if i not in self.done), index]:
            self._post_backward(late, live)
        self.gathered.clear()
        self.flat.clear()

    def _send(self, what: str, size: float) -> None:
        self.bytes[what] += size
        self.calls[what] += size > 0

    def traffic(self) -> Traffic:
        """Weights are gathered for every micro-batch, gradients leave after the last."""
        micro, sent, calls = self.setting.accumulate, self.bytes, self.calls
        return replace(
            super().traffic(),
            shard=micro * sent["gather"] + sent["scatter"],
            replicate=sent["sum"],
            shard_calls=micro * calls["gather"] + calls["scatter"],
            replicate_calls=calls["sum"],
        )
