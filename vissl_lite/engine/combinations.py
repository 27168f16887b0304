"""Combinations of settings that do not exist, numbers that do not come out even or do not stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vissl_lite.config import Config
from vissl_lite.errors import ConfigError
from vissl_lite.parallel.agreement import check_alike
from vissl_lite.parallel.mesh import Strategy

HOW_TO_KEEP = "(fewer GPUs: more images each, or train.accumulate)"


def shards_classes(config: Config) -> bool:
    return any(isinstance(h, dict) and h.get("shard_classes") for h in config.heads)


def accepted(
    config: Config, strategies: Sequence[Strategy], device: torch.device
) -> list[Strategy]:
    """Those of the strategies that can do what the config asks for, in their order.

    Raises:
        ConfigError: there is none; with what keeps out the one that is closest to it.
    """
    problems = [refused(config, strategy, device) for strategy in strategies]
    if all(problems):
        raise ConfigError(*min(problems, key=len))
    return [strategy for strategy, found in zip(strategies, problems) if not found]


def refused(config: Config, strategy: Strategy | None, device: torch.device) -> list[str]:
    """A sentence for every combination that PyTorch or we cannot do; docs/scale.md lists them."""
    parallel, memory, train = config.parallel, config.memory, config.train
    offload, cached = memory.cpu_offload, train.grad_cache is not None
    classes = shards_classes(config)
    rules = [
        (
            parallel.shard_size is not None and strategy != "hsdp",
            "parallel.shard_size: belongs to hsdp; leave it out, or set parallel.strategy=hsdp",
        ),
        (
            offload and device.type == "cpu",
            "memory.cpu_offload: there is no GPU to offload from; leave it out",
        ),
        (
            offload and strategy in (None, "reference_ddp", "ddp"),
            "memory.cpu_offload: needs a strategy that shards; set parallel.strategy=zero3",
        ),
        (
            classes and strategy == "reference_ddp",
            "heads: shard_classes needs FSDP2; set parallel.strategy to ddp, zero2, zero3 or hsdp",
        ),
        (classes and offload, "heads: shard_classes and memory.cpu_offload exclude each other"),
        (
            cached and train.accumulate > 1,
            "train.grad_cache: gives the gradient of the whole batch; set train.accumulate=1",
        ),
    ]
    return [sentence for applies, sentence in rules if applies]


def check_processes(config: Config, world: int) -> None:
    """That the batch and all groups of processes come out even.

    Ranks with different batches would change the gradient: losses gather equal blocks, SyncBN and
    the mean over ranks count every rank alike.

    Raises:
        ConfigError: what does not, and the nearest numbers of processes with which all does.
    """
    problems = _uneven(config, world)
    if problems:
        fitting = [n for n in range(2, config.train.batch_size + 1) if not _uneven(config, n)]
        nearest = [*[n for n in fitting if n < world][-1:], *[n for n in fitting if n > world][:1]]
        several = world > 1 and nearest
        start = f"start {' or '.join(map(str, nearest))} processes, or " if several else ""
        raise ConfigError(*(f"{problem}; {start}{mend}" for problem, mend in problems))


def _uneven(config: Config, world: int) -> list[tuple[str, str]]:
    """What does not come out even, and how to mend it."""
    train, parallel = config.train, config.parallel
    images = train.batch_size // world
    new_run = f"begin a new run with init=RUN: one that goes on keeps its batch {HOW_TO_KEEP}"
    rules = [
        (
            train.batch_size % world,
            f"train.batch_size: {train.batch_size} images do not divide evenly over {world}"
            " processes",
            new_run if config.resume else "change it",
        ),
        (
            images % train.accumulate,
            f"train.accumulate: {images} images per process do not divide into {train.accumulate}"
            " micro-batches",
            f"take a divisor of {images}",
        ),
        *(
            (
                world % size,
                f"{key}: {world} processes do not split into groups of {size}",
                "change it",
            )
            for key, size in (
                ("parallel.sync_bn", parallel.sync_bn),
                ("parallel.shard_size", parallel.shard_size),
            )
            if world > 1 and isinstance(size, int) and size > 0
        ),
    ]
    return [(sentence, mend) for rest, sentence, mend in rules if rest]


def check_same_images(source: Any, place: str) -> None:
    """Compares how many images and classes all ranks have; all call it together.

    Raises:
        ConfigError: they differ, as the disks of machines may; it says who has how many.
    """
    classes = "" if source.num_classes is None else f" of {source.num_classes:,} classes"
    check_alike(place, f"{len(source):,} images{classes}", "give all machines the same images")


def check_continued(now: Mapping[str, int], saved: Mapping[str, Any]) -> None:
    """That a run goes on with the batch and the number of images that it began with.

    Its place in the schedules and in the order of the images is a number of steps, which mean
    something else with others.

    Args:
        now: "batch_size", "images" of the source and "steps_per_epoch".
        saved: "step" and, under "lengths", the same; those of earlier versions go without.

    Raises:
        ConfigError: it does not; with how to go on.
    """
    if (before := saved.get("lengths")) is None:
        return
    gone, new_run = f"the run has gone {saved['step']:,} steps", "begin a new run with init=RUN"
    if now["batch_size"] != before["batch_size"]:
        raise ConfigError(
            f"train.batch_size: {gone} of {before['batch_size']:,} images; keep the batch"
            f" {HOW_TO_KEEP}, or {new_run}"
        )
    if now["images"] != before["images"]:
        raise ConfigError(
            f"data.source: {gone} on {before['images']:,} images, and there are {now['images']:,};"
            f" bring back those of before, or {new_run} on these"
        )
    if now["steps_per_epoch"] != before["steps_per_epoch"]:
        raise ConfigError(
            f"data.sampler: {gone} in epochs of {before['steps_per_epoch']:,} steps, which now have"
            f" {now['steps_per_epoch']:,}; take its settings of before, or {new_run}"
        )
