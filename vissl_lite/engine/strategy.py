"""Which strategy a training takes: what is set, or what the planner finds."""

from __future__ import annotations

import torch

from vissl_lite.config import Config
from vissl_lite.engine.combinations import refused
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
    given = config.memory.activation_checkpointing
    alone = device.type != "meta" and _stays_alone(config, device)
    if alone and given != "auto":
        return None, given
    strategy, checkpointing = _planned(config, device)
    if device.type == "meta" or alone:
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
