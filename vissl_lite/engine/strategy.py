"""Which strategy a training takes, and the combinations that do not exist."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vissl_lite.config import Config
from vissl_lite.errors import ConfigError
from vissl_lite.layers.unit import Checkpointing
from vissl_lite.parallel.collectives import is_distributed, on_rank_zero, world_size
from vissl_lite.parallel.mesh import Strategy
from vissl_lite.parallel.process import join_single_group


def choose_strategy(config: Config, device: torch.device) -> tuple[Strategy | None, Checkpointing]:
    """What `parallel.strategy` and `memory.activation_checkpointing` say, or what `auto` becomes.

    The strategy is None for one process whose model is not wrapped. All ranks call it together.

    Raises:
        ConfigError: with every combination of settings that does not exist.
    """
    strategy, checkpointing = _planned(config, device)
    if device.type == "meta" or _stays_alone(config, device):
        return None, checkpointing
    if not is_distributed():
        join_single_group()
    return strategy, checkpointing


def _stays_alone(config: Config, device: torch.device) -> bool:
    """Whether `auto` leaves the model of one process as it is."""
    free = config.parallel.strategy == "auto" and not is_distributed()
    return free and not refused(config, None, device)


def stand_in(config: Config, device: torch.device) -> str:
    """What to add to the note of a choice of `auto` on a GPU that the planner does not know."""
    from vissl_lite.plan.devices import STAND_IN, row_of

    given = config.parallel.strategy, config.memory.activation_checkpointing
    if device.type != "cuda" or "auto" not in given:
        return ""
    name = torch.cuda.get_device_name(device)
    if row_of(name):
        return ""
    return f"; the planner does not know {name!r} and takes it to be as fast as {STAND_IN}"


def _planned(config: Config, device: torch.device) -> tuple[Strategy, Checkpointing]:
    """Asks the planner, on rank 0."""
    from vissl_lite.plan.suggest import suggest  # imports much that a small run never needs

    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        name = torch.cuda.get_device_name(device)
        return on_rank_zero(lambda: suggest(config, world_size(), total, name))
    return suggest(config, world_size(), 0, device.type)


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
    rules = [
        (
            train.batch_size % world,
            f"train.batch_size: {train.batch_size} images do not divide evenly over {world}"
            " processes",
            "change it",
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
