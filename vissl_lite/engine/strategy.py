"""Which strategy a training takes, and the combinations that do not exist."""

from __future__ import annotations

import torch

from vissl_lite.config import Config
from vissl_lite.errors import ConfigError
from vissl_lite.layers.unit import Checkpointing
from vissl_lite.parallel.collectives import is_distributed, on_rank_zero, world_size
from vissl_lite.parallel.mesh import SHARDED, Strategy
from vissl_lite.parallel.process import join_single_group


def choose_strategy(config: Config, device: torch.device) -> tuple[Strategy | None, Checkpointing]:
    """What `parallel.strategy` and `memory.activation_checkpointing` say, or what `auto` becomes.

    The strategy is None for one process whose model is not wrapped. All ranks call it together.

    Raises:
        ConfigError: with every combination of settings that does not exist.
    """
    strategy, checkpointing = _chosen(config, device)
    problems = refused(config, strategy, device)
    if problems:
        raise ConfigError(*problems)
    if device.type == "meta":
        return None, checkpointing
    if strategy is not None and not is_distributed():
        join_single_group()
    return strategy, checkpointing


def _chosen(config: Config, device: torch.device) -> tuple[Strategy | None, Checkpointing]:
    strategy, checkpointing = _planned(config, device)
    if config.parallel.strategy == "auto" and not is_distributed():
        return None, checkpointing
    if (
        strategy == "reference_ddp"
        and config.parallel.strategy == "auto"
        and shards_classes(config)
    ):
        return "ddp", checkpointing
    return strategy, checkpointing


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
    return suggest(config, world_size(), 0, "cpu")


def shards_classes(config: Config) -> bool:
    return any(isinstance(h, dict) and h.get("shard_classes") for h in config.heads)


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
            offload and strategy not in SHARDED,
            "memory.cpu_offload: needs a strategy that shards; set parallel.strategy=zero3",
        ),
        (
            classes and strategy == "reference_ddp",
            "heads: shard_classes needs FSDP2; set parallel.strategy to ddp, zero2, zero3 or hsdp",
        ),
        (
            classes and config.precision == "fp16",
            "heads: the scaler of fp16 cannot look at the meshes of shard_classes; take bf16",
        ),
        (classes and offload, "heads: shard_classes and memory.cpu_offload exclude each other"),
        (
            cached and train.accumulate > 1,
            "train.grad_cache: gives the gradient of the whole batch; set train.accumulate=1",
        ),
    ]
    return [sentence for applies, sentence in rules if applies]
