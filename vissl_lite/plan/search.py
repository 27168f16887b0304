"""Every strategy x checkpointing x batch: what it takes, how long it lasts, which is fastest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import torch

from vissl_lite.config import Config
from vissl_lite.engine.combinations import accepted, shards_classes
from vissl_lite.errors import ConfigError
from vissl_lite.layers.norm import check_groups
from vissl_lite.layers.unit import Checkpointing
from vissl_lite.parallel.mesh import Strategy, checked_shard_size, processes_per_copy
from vissl_lite.plan.compute import Time, step_time
from vissl_lite.plan.devices import Device
from vissl_lite.plan.memory import Cost, Setting, cost
from vissl_lite.plan.subject import Subject, optimizer_ratios
from vissl_lite.plan.trace import Bytes, Event, Trace

CHECKPOINTING: tuple[Checkpointing, ...] = get_args(Checkpointing)
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
TIE = 1.03  # seconds of steps that count as equal; then the order of `Plan.best` decides


@dataclass(frozen=True)
class Cell:
    """One strategy, checkpointing and batch."""

    strategy: str
    checkpointing: Checkpointing
    batch: int
    cost: Cost
    time: Time
    fits: bool

    @property
    def images_per_s(self) -> float:
        """Per GPU."""
        return self.batch / self.time.step


@dataclass(frozen=True)
class Plan:
    """All cells and what they are about.

    Attributes:
        flops: of a training step per image, without recomputation.
        leanest: the one with the least memory.
    """

    recipe: str
    world: int
    shard: int
    gpu: str
    device: Device
    precision: str
    parameters: int
    flops: float
    cells: list[Cell]
    notes: list[str] = field(default_factory=list)

    @property
    def best(self) -> Cell | None:
        """The fastest that fits, or None; of equals the first that gathers within machines.

        NCCL gathers and scatters in rings, a step of latency per rank, which `Device.latency` does
        not count; all-reduce has trees (NCCL, src/graph/tuning.cc: `nsteps`, `latencies`).
        """
        fitting = [cell for cell in self.cells if cell.fits]
        if not fitting:
            return None
        most = max(cell.images_per_s for cell in fitting)
        equal = [cell for cell in fitting if cell.images_per_s * TIE >= most]
        ring = {s: processes_per_copy(s, self.world, self.shard) for s in STRATEGIES}
        return min(equal, key=lambda c: (c.batch, ring.get(c.strategy, 1) > self.device.gpus))

    @property
    def leanest(self) -> Cell:
        return min(self.cells, key=lambda cell: cell.cost.peak)

    def sentence(self) -> str:
        """The fastest that fits, as keys to set."""
        best = self.best
        limit = f"{self.device.usable / 2**30:.1f} GiB"
        if best is None:
            least = self.leanest
            return (
                f"Nothing fits into {limit}: the least is {least.cost.peak / 2**30:.1f} GiB with"
                f" {self.keys(least)}. Take fewer images per GPU or more train.accumulate."
            )
        return (
            f"Fastest that fits into {limit}: {self.keys(best)}, with"
            f" {best.cost.peak / 2**30:.1f} GiB, {best.time.step:.2f} s per step and"
            f" {best.images_per_s * self.world:,.0f} images/s on {self.world} GPUs (estimated)."
        )

    def keys(self, cell: Cell) -> str:
        """What to write on the command line for this cell."""
        keys = [f"memory.activation_checkpointing={cell.checkpointing}"]
        if cell.strategy != "single":
            keys.insert(0, f"parallel.strategy={cell.strategy}")
        if cell.strategy == "hsdp":
            keys.append(f"parallel.shard_size={self.shard}")
        return " ".join([*keys, f"train.batch_size={cell.batch * self.world}"])


def make_plan(
    config: Config,
    world: int,
    gpu: str,
    device: Device,
    batches: Sequence[int] = (),
    strategies: Sequence[Strategy] = STRATEGIES,
    checkpointing: Sequence[Checkpointing] = CHECKPOINTING,
    fresh: bool = False,
) -> Plan:
    """Estimates every cell; nothing is allocated and no image is read.

    Args:
        world: GPUs, one process each.
        batches: images per GPU and step; default: the config's global batch.
        fresh: do not use what was found before.

    Raises:
        ConfigError: a config that does not build, a batch, `shard_size` or `sync_bn` that does not
            divide, or settings that no strategy can do together.
    """
    batches = sorted(set(batches)) or [_share(config, world)]
    _check_batches(batches, config.train.accumulate)
    precision = _precision(config, device)
    shard = _shard(config, world, device)
    if world > 1:
        check_groups(config.parallel.sync_bn, world)
    subject = Subject(config, precision, world, fresh)
    ratios = {sharded: optimizer_ratios(config, sharded) for sharded in (False, True)}
    able = accepted(config, strategies, torch.device("cuda"))
    planned, cells = _possible(config, able, world, shard), []
    for mode in checkpointing:
        kinds = {strategy in _GATHERING for strategy in planned}
        traces = {gathered: _traces(subject, mode, batches, gathered) for gathered in kinds}
        for strategy in planned:
            setting = _setting(config, strategy, world, shard, precision, ratios)
            for batch, trace in zip(batches, traces[strategy in _GATHERING]):
                cells.append(_cell(trace, subject, setting, mode, batch, device))
    order = [*_SINGLE, *STRATEGIES]
    cells.sort(
        key=lambda c: (c.batch, order.index(c.strategy), CHECKPOINTING.index(c.checkpointing))
    )
    return Plan(
        str(config.recipe),
        world,
        shard,
        gpu,
        device,
        precision,
        subject.layout.parameters(),
        subject.flops(),
        cells,
        _notes(config, world, device, strategies),
    )


_GATHERING = ("ddp", "zero2", "zero3", "hsdp")
_SINGLE = ("single",)


def _cell(
    trace: Trace,
    subject: Subject,
    setting: Setting,
    checkpointing: Checkpointing,
    batch: int,
    device: Device,
) -> Cell:
    found = cost(trace, subject.layout, setting)
    trained = sum(group.shard(setting.shard, trainable=True) for group in subject.layout.all)
    time = step_time(trace, found.traffic, setting, trained, device)
    fits = found.peak <= device.usable
    return Cell(setting.strategy, checkpointing, batch, found, time, fits)


def _possible(config: Config, strategies: Sequence[str], world: int, shard: int) -> Sequence[str]:
    """Without those that would be another one: one process, or groups of all processes."""
    if world == 1:
        return ["zero3"] if config.memory.cpu_offload else _SINGLE
    return [s for s in strategies if s != "hsdp" or shard < world] or ["zero3"]


def _traces(
    subject: Subject, mode: Checkpointing, batches: Sequence[int], gathered: bool
) -> list[Trace]:
    """One trace per batch. Of three or more, those between are interpolated: all is linear."""
    micro = [batch // subject.config.train.accumulate for batch in batches]
    ends = {b: subject.trace(mode, b, gathered) for b in {micro[0], micro[-1]}}
    low, high = ends[micro[0]], ends[micro[-1]]
    span = micro[-1] - micro[0]
    return [ends[b] if b in ends else between(low, high, (b - micro[0]) / span) for b in micro]


def between(a: Trace, b: Trace, part: float) -> Trace:
    """The trace at `part` of the way from a to b, two traces of one model."""

    def mix(x: float, y: float) -> float:
        return x + part * (y - x)

    def mix_bytes(x: Bytes, y: Bytes) -> Bytes:
        return {k: round(mix(x.get(k, 0), y.get(k, 0))) for k in {*x, *y}}

    events = [
        Event(e.kind, e.group, mix_bytes(e.live, f.live), mix_bytes(e.peak, f.peak))
        for e, f in zip(a.events, b.events, strict=True)
    ]
    return Trace(
        events,
        mix(a.flops, b.flops),
        mix(a.moved, b.moved),
        a.calls,
        mix_bytes(a.sent, b.sent),
        a.buffers,
        round(mix(a.inputs, b.inputs)),
    )


def _setting(
    config: Config,
    strategy: str,
    world: int,
    shard: int,
    precision: str,
    ratios: dict[bool, tuple[float, float]],
) -> Setting:
    ranks = processes_per_copy(strategy, world, shard)
    low = 4 if precision == "fp32" else 2
    sharded = strategy in _GATHERING
    offload = config.memory.cpu_offload and sharded
    micro, sync_bn = config.train.accumulate, config.parallel.sync_bn
    norm = world if sync_bn == "all" else 1 if sync_bn == "off" else int(sync_bn)
    return Setting(strategy, world, ranks, low, *ratios[sharded], micro, offload, norm)


def _precision(config: Config, device: Device) -> str:
    if config.precision != "auto":
        return config.precision
    return "bf16" if device.bf16 else "fp16"


def _share(config: Config, world: int) -> int:
    batch = config.train.batch_size
    if batch % world:
        raise ConfigError(
            f"train.batch_size: {batch} images do not divide over {world} GPUs; give another, or"
            " the images per GPU as batch="
        )
    return batch // world


def _shard(config: Config, world: int, device: Device) -> int:
    """Processes of a group of hsdp: as given, a machine's, or all where machines are uneven."""
    given = config.parallel.shard_size
    if given is None and _is_uneven(world, device):
        return world
    return checked_shard_size(given, min(world, device.gpus), world)


def _is_uneven(world: int, device: Device) -> bool:
    return world % min(world, device.gpus) > 0


def _check_batches(batches: Sequence[int], accumulate: int) -> None:
    for batch in batches:
        if min(batch, accumulate) < 1 or batch % accumulate:
            raise ConfigError(
                f"batch: {batch} images per GPU do not divide into {accumulate} micro-batches"
                " (train.accumulate)"
            )


def _notes(config: Config, world: int, device: Device, strategies: Sequence[Strategy]) -> list[str]:
    notes = []
    if config.parallel.shard_size is None and _is_uneven(world, device):
        notes.append(
            f"hsdp is left out: {world} GPUs do not split into machines of {device.gpus}; give"
            " parallel.shard_size"
        )
    able = accepted(config, STRATEGIES, torch.device("cuda"))
    if world > 1 and (left_out := [s for s in strategies if s not in able]):
        notes.append(
            f"{', '.join(left_out)}: left out, for the config sets what does not go with that"
        )
    if config.memory.cpu_offload:
        notes.append("memory.cpu_offload: its copies and the host's optimizer are not in the time")
    if config.compile:
        notes.append("compile=true is not modelled: memory and time are those of eager execution")
    if config.train.grad_cache:
        notes.append("train.grad_cache is not modelled: activations are those of the whole batch")
    if shards_classes(config):
        notes.append("shard_classes: traffic of features and scores is not counted")
    return notes
