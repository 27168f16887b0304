"""What the steps of a training cost, and where: built as a run does, real steps."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from vissl_lite.config import Config
from vissl_lite.data.batch import Batch
from vissl_lite.data.loader import Loader
from vissl_lite.engine.flops import peak_flops
from vissl_lite.engine.journal import device_name
from vissl_lite.engine.trainer import Trainer
from vissl_lite.layers.unit import Unit
from vissl_lite.parallel.collectives import is_distributed, rank, world_size
from vissl_lite.parallel.process import choose_device
from vissl_lite.parallel.wrap import units_of
from vissl_lite.profile import memory, trace
from vissl_lite.profile.clock import PHASES, Clock, take_steps
from vissl_lite.profile.settings import PROFILED, Settings, for_measuring

OPERATORS = 10  # of the list of the most expensive ones


def bench_step(config: Config, settings: Settings) -> dict[str, Any]:
    """Builds a training and measures it; all ranks call it together and get the same result.

    Returns:
        Numbers and strings for `print_report` and JSON; seconds, bytes, FLOP/s.

    Raises:
        ConfigError: whatever would stop a run at its start.
    """
    config, notes = for_measuring(config, settings)
    device = choose_device(config.device)
    memory.reset_peak(device)
    before = memory.peak(device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, Path(folder))
        measured = measure(trainer, batches(trainer, settings), settings, before)
    about = {
        "recipe": config.recipe,
        "device": device_name(device),
        "torch": torch.__version__,
        "world_size": world_size(),
        "strategy": trainer.parts.strategy or "one process",
        "checkpointing": _checkpointing(trainer),
        "precision": trainer.parts.numerics.precision,
        "memory_format": trainer.parts.numerics.memory_format,
        "compile": config.compile,
        "global_batch": config.train.batch_size,
        "local_batch": trainer.parts.local_batch,
        "accumulate": config.train.accumulate,
        "images": settings.images,
        "notes": notes,
    }
    return about | measured


def _checkpointing(trainer: Trainer) -> str:
    units = [unit for unit in units_of(trainer.model) if isinstance(unit, Unit)]
    return units[0].checkpointing if units else trainer.config.memory.activation_checkpointing


def batches(trainer: Trainer, settings: Settings) -> Iterator[Batch]:
    """As many as the measurement takes, on the device."""
    parts = trainer.parts
    count = 1 if settings.images == "resident" else settings.all_steps
    loader = Loader(parts.dataset, parts.sampler(0, count), parts.device, parts.workers)
    return repeat(next(iter(loader))) if settings.images == "resident" else iter(loader)


def measure(
    trainer: Trainer, batches: Iterator[Batch], settings: Settings, before: int
) -> dict[str, Any]:
    """Times, memory, rates and operators of a built training.

    Args:
        before: bytes in use before it was built; see `memory.parts`.
    """
    take_steps(trainer, batches, Clock(trainer.device), settings.warmup)
    memory.reset_peak(trainer.device)
    clock = Clock(trainer.device)
    take_steps(trainer, batches, clock, settings.steps)
    held = memory.parts(trainer, before)
    communication, operators = _profiled(trainer, batches, settings.trace)
    own = {"steps": clock.steps(), "memory": held, "communication": communication}
    ranks = _gathered(own)
    times = summary(ranks)
    mean = times["step"]["mean"]
    flops = trainer.parts.flops_per_image * trainer.parts.local_batch / mean
    peak = peak_flops(trainer.device)
    return {
        "times": times,
        "memory": max((r["memory"] for r in ranks), key=lambda m: m["peak"]),
        "images_per_s": trainer.config.train.batch_size / mean,
        "flops": flops,
        "peak_flops": peak,
        "mfu": flops / peak if peak else None,
        "operators": operators,
    }


def _profiled(
    trainer: Trainer, batches: Iterator[Batch], file: Path | None
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Seconds of exposed communication per step and phase; the most expensive operators."""
    on_gpu = trainer.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, acc_events=True) as recorded:  # else torch 2.11 warns
        take_steps(trainer, batches, Clock(trainer.device), PROFILED)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(raw))
        content = trace.read(raw)
    if file is not None and rank() == 0:
        trace.write(content, file)
    exposed = trace.exposed_communication(content["traceEvents"], on_gpu)
    return {k: s / PROFILED for k, s in exposed.items()}, _operators(recorded, on_gpu)


def _operators(recorded: profile, on_gpu: bool) -> list[dict[str, Any]]:
    """By the time they take themselves: on the GPU that of their kernels."""
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    rows = [
        row
        for row in recorded.key_averages()
        if row.device_type == DeviceType.CPU
        and not row.is_user_annotation
        and not row.key.startswith("autograd::")  # what calls the operators of a backward pass
    ]
    total = sum(getattr(row, key) for row in rows)
    first = sorted(rows, key=lambda row: getattr(row, key), reverse=True)[:OPERATORS]
    return [
        {
            "name": row.key,
            "calls": row.count / PROFILED,
            "seconds": getattr(row, key) / PROFILED / 1e6,
            "share": getattr(row, key) / total,
        }
        for row in first
    ]


def summary(ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean, median and quartiles of each phase, in seconds, on the rank that the others wait for.

    That is the one with the least exposed communication. The means of the phases and of
    "communication", which is taken out of the phases it falls into, add up to that of "step".
    """
    waits = [sum(r["communication"].get(p, 0.0) for p in PHASES) for r in ranks]
    slowest = waits.index(min(waits))
    steps, exposed = ranks[slowest]["steps"], ranks[slowest]["communication"]
    found: dict[str, Any] = {"rank": slowest, "communication": {"mean": 0.0}}
    for phase in PHASES:
        spread = _spread([step[phase] for step in steps])
        taken = min(exposed.get(phase, 0.0), spread["mean"])
        found[phase] = spread | {"mean": spread["mean"] - taken, "communication": taken}
        found["communication"]["mean"] += taken
    found["step"] = _spread([sum(step.values()) for step in steps])
    return found


def _spread(seconds: list[float]) -> dict[str, float]:
    low, median, high = (
        statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    )
    return {"mean": statistics.fmean(seconds), "median": median, "low": low, "high": high}


def _gathered(own: dict[str, Any]) -> list[dict[str, Any]]:
    """The same of every rank, in rank order."""
    found: list[Any] = [own] * world_size()
    if is_distributed():
        dist.all_gather_object(found, own)
    return found
