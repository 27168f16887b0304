"""What lies in the memory of a device, by part."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vissl_lite.engine.meters import peak_memory_gb
from vissl_lite.parallel.shards import local

if TYPE_CHECKING:
    from vissl_lite.engine.trainer import Trainer

PROC = Path("/proc/self")  # Linux: the peak of a process can be read and set back


def reset_peak(device: torch.device) -> None:
    """From now on `peak` counts anew; outside of Linux a CPU's peak is that of the process."""
    if device.type == "cuda":
        torch.cuda.init()  # which the next line wants and does not do for a device with an index
        torch.cuda.reset_peak_memory_stats(device)
    elif PROC.is_dir():
        (PROC / "clear_refs").write_text("5")


def peak(device: torch.device) -> int:
    """Bytes: allocated by PyTorch on a GPU, resident of this process on a CPU."""
    if device.type == "cpu" and PROC.is_dir():
        [line] = [x for x in (PROC / "status").read_text().splitlines() if x.startswith("VmHWM")]
        return 1024 * int(line.split()[1])
    return round(1e9 * peak_memory_gb(device))


def parts(trainer: Trainer, before: int) -> dict[str, int]:
    """Bytes on the device by part, right after a step, whose gradients are still there.

        activations = peak - everything else

    A CPU's activations therefore have all in them that the process took besides: workspaces, the
    allocator's slack, images in the making, code loaded late.

    Args:
        before: what was in use before the training was built: interpreter and libraries.
    """
    device, model, loss = trainer.device, trainer.model, trainer.loss
    found = {
        "program": before,
        "parameters": held(model.parameters(), device),
        "gradients": held((p.grad for p in model.parameters() if p.grad is not None), device),
        "optimizer state": held(_tensors(trainer.optimizer.state), device),
        "buffers": held([*model.buffers(), *loss.buffers(), *loss.parameters()], device),
    }
    highest = peak(device)
    found |= {"activations": highest - sum(found.values()), "peak": highest}
    if device.type == "cuda":
        found["reserved"] = torch.cuda.max_memory_reserved(device)
    return found


def held(tensors: Iterable[Tensor], device: torch.device) -> int:
    """Bytes of what this process holds of some tensors on a kind of device."""
    return sum(t.nbytes for t in local(tensors) if t.device.type == device.type)


def _tensors(state: dict[Any, dict[str, Any]]) -> Iterable[Tensor]:
    return (v for values in state.values() for v in values.values() if isinstance(v, Tensor))
