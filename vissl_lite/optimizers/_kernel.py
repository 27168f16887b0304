"""Which of torch's implementations of an optimizer runs: fused, foreach, or its own choice."""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer


def fastest(params: list[dict[str, Any]], *, fused_shards: bool) -> dict[str, Any]:
    """The keywords `fused` and `foreach` for these parameters.

    Fused for plain tensors on CPU and GPU: measured on one CPU core with ResNet-18, 2x faster than
    the default for SGD and 4x for AdamW. Of sharded tensors torch would take one after the other
    by default; they get fused kernels where these accept them (`fused_shards`), else foreach.
    """
    tensors = [p for group in params for p in group["params"]]
    sharded = [isinstance(p, DTensor) for p in tensors]
    if all(_has_kernel(p) for p in tensors) and not any(sharded):
        return {"fused": True, "foreach": None}
    if all(sharded):
        return {"fused": fused_shards or None, "foreach": None if fused_shards else True}
    return {"fused": None, "foreach": None}


def keep_kernel(optimizer: Optimizer, kernel: dict[str, Any]) -> None:
    """Keeps `kernel` when a checkpoint is loaded: it belongs to this run's devices and shards."""

    def replace(_: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        groups = [{**group, **kernel} for group in state_dict["param_groups"]]
        return {**state_dict, "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(replace)


def _has_kernel(p: Tensor) -> bool:
    if p.device.type == "cpu":  # torch 2.11's fused SGD leaves half-precision ones as they are
        return p.dtype in (torch.float32, torch.float64)
    return p.device.type == "cuda" and p.is_floating_point()
