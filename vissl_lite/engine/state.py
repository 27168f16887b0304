"""The tensors of a training, under names that no strategy and no number of processes changes.

model.trunk.stem.0.weight
optimizer.trunk.stem.0.weight.momentum_buffer
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vissl_lite.engine.tensor_files import read_tensors, saved_tensors
from vissl_lite.errors import ConfigError

MODEL, OPTIMIZER = "model.", "optimizer."


def tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Weights, statistics and optimizer state; of a sharded model, DTensors."""
    state = {MODEL + name: t for name, t in model.state_dict().items()}
    return state | {
        f"{OPTIMIZER}{name}.{key}": torch.as_tensor(value)
        for name, p in optimized(optimizer)
        for key, value in optimizer.state.get(p, {}).items()
    }


def load(checkpoint: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Fills model and optimizer from a checkpoint; each process reads what it holds.

    Raises:
        ConfigError: the checkpoint is damaged, or of another model.
    """
    saved = saved_tensors(checkpoint)
    state = {MODEL + name: t for name, t in model.state_dict().items()}
    wrong = differences({k: t for k, t in saved.items() if k.startswith(MODEL)}, state)
    if wrong:
        raise ConfigError(
            f"resume: {checkpoint} is of another model: {wrong}; resume with the settings of the"
            " run"
        )
    moments = _room_for(saved, optimizer)
    flat = {
        f"{OPTIMIZER}{name}.{key}": t for name, own in moments.items() for key, t in own.items()
    }
    read_tensors(checkpoint, state | flat)
    model.load_state_dict({name.removeprefix(MODEL): t for name, t in state.items()})
    _load_moments(optimizer, moments)


def read_model(checkpoint: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, whole, on the CPU of this process."""
    saved = saved_tensors(checkpoint)
    state = {k: torch.empty_like(t, device="cpu") for k, t in saved.items() if k.startswith(MODEL)}
    read_tensors(checkpoint, state, alone=True)
    return {name.removeprefix(MODEL): t for name, t in state.items()}


def optimized(optimizer: Optimizer) -> Iterator[tuple[str, Tensor]]:
    """(name, parameter) for all that the optimizer has."""
    for group in optimizer.param_groups:
        yield from zip(group["names"], group["params"])


def _room_for(saved: dict[str, Tensor], optimizer: Optimizer) -> dict[str, dict[str, Tensor]]:
    """Parameter name -> key -> a tensor like the saved one, sharded as the parameter is."""
    room: dict[str, dict[str, Tensor]] = {}
    parameters = {OPTIMIZER + name: (name, p) for name, p in optimized(optimizer)}
    for saved_name, like in saved.items():
        prefix, _, key = saved_name.rpartition(".")
        if prefix in parameters:
            name, p = parameters[prefix]
            whole = like.shape == p.shape and p.ndim > 0
            fresh = torch.zeros_like(p, dtype=like.dtype) if whole else torch.zeros(like.shape)
            room.setdefault(name, {})[key] = fresh
    return room


def _load_moments(optimizer: Optimizer, moments: dict[str, dict[str, Tensor]]) -> None:
    """Through the optimizer's own door, which knows where its counters live."""
    state: dict[int, Any] = {
        i: moments[name] for i, (name, _) in enumerate(optimized(optimizer)) if name in moments
    }
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def differences(given: dict[str, Tensor], wanted: dict[str, Tensor]) -> str:
    """What keeps the tensors `given` from being loaded as `wanted`, in words; "" if nothing."""
    wrong = [
        f"{key} is {list(given[key].shape)}, the model has {list(t.shape)}"
        for key, t in wanted.items()
        if key in given and given[key].shape != t.shape
    ]
    wrong += [f"{key} is missing" for key in wanted if key not in given]
    wrong += [f"{key} is not in the model" for key in given if key not in wanted]
    more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return "; ".join(wrong[:3]) + more
