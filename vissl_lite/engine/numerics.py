"""Precision and memory layout: what the user asks for, or what a short measurement finds faster."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from vissl_lite.model import SSLModel
from vissl_lite.parallel.collectives import broadcast_object

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
IMAGES, ROUNDS = 16, 3  # of a measurement


@dataclass
class Numerics:
    """Decided once per run and kept with its checkpoints, so that a resumed run computes alike."""

    precision: str
    memory_format: str
    reason: str

    @property
    def layout(self) -> torch.memory_format:
        return LAYOUTS[self.memory_format]

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager:
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=DTYPES[self.precision])

    def state_dict(self) -> dict[str, str]:
        return asdict(self)


def choose(
    precision: str,
    memory_format: str,
    model: SSLModel,
    views: Sequence[Tensor],
    device: torch.device,
) -> Numerics:
    """Numerics of a run; what is 'auto' is measured on the first images of the first batch.

    A candidate is one forward and backward pass of the real model. Ties within 5 % go to fp32 and
    to the contiguous layout.

    Args:
        views: uint8 [V, B, H, W, C] per group, on the device.

    Raises:
        ConfigError: a precision that this device does not have.
    """
    candidates = list(itertools.product(_precisions(precision, device), _layouts(memory_format)))
    if len(candidates) == 1:
        return Numerics(*candidates[0], reason="as given")
    few = [view[:, :IMAGES] for view in views]
    seconds = broadcast_object(
        {c: _measure(Numerics(*c, ""), model, few, device) for c in candidates}
    )
    best = min(seconds, key=lambda c: seconds[c] * (1 + 0.05 * (candidates.index(c) > 0)))
    shown = ", ".join(f"{p} {m} {1e3 * seconds[p, m]:.0f} ms" for p, m in candidates)
    return Numerics(*best, reason=f"measured on {few[0].shape[1]} images: {shown}")


def _precisions(precision: str, device: torch.device) -> list[str]:
    if precision != "auto":
        return [precision]
    if device.type == "cuda":
        return ["bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"]
    return ["fp32", "bf16"] if has_fast_bf16_cpu() else ["fp32"]


def has_fast_bf16_cpu() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AMX or AVX512-BF16)."""
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


def _layouts(memory_format: str) -> list[str]:
    return ["contiguous", "channels_last"] if memory_format == "auto" else [memory_format]


def _measure(
    numerics: Numerics, model: SSLModel, views: Sequence[Tensor], device: torch.device
) -> float:
    with _untouched(model):
        apply_layout(model, numerics)
        times = [_pass(numerics, model, views, device) for _ in range(ROUNDS + 1)]
        apply_layout(model, replace(numerics, memory_format="contiguous"))  # FSDP takes no other
    return min(times[1:])  # other work on the machine only ever adds time


def _pass(
    numerics: Numerics, model: SSLModel, views: Sequence[Tensor], device: torch.device
) -> float:
    synchronise(device)
    start = time.perf_counter()
    with numerics.autocast(device):
        outputs = model(views)
    ends = [outputs.embedding, *map(_scored, outputs.logits)]
    torch.stack([end.float().square().mean() for end in ends]).sum().backward()
    synchronise(device)
    return time.perf_counter() - start


def _scored(logits: Any) -> Tensor:
    """Logits, or of a surrogate, whose logits are made when a loss asks for them, a softmax."""
    if isinstance(logits, Tensor):
        return logits
    images = logits.shape[1]
    return logits.softmax(torch.zeros(images, dtype=torch.int64, device=logits.x_ND.device))[0]


@contextlib.contextmanager
def _untouched(model: SSLModel) -> Iterator[None]:
    """Afterwards the model's statistics, gradients and the random state are as before."""
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    devices: list[Any] = [b.device for b in buffers.values() if b.device.type == "cuda"][:1]
    with torch.random.fork_rng(devices=devices):
        yield
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, b in model.named_buffers():
            b.copy_(buffers[name])


def apply_layout(model: SSLModel, numerics: Numerics) -> None:
    """Lays out the convolution weights and, from now on, the images."""
    model.memory_format = numerics.layout
    if model.teacher is not None:
        model.teacher.memory_format = numerics.layout
    if not isinstance(model, FSDPModule):  # whose shards are contiguous always (torch 2.15)
        model.to(memory_format=numerics.layout)  # pyright: ignore[reportCallIssue]


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def autotuned(on: bool) -> Iterator[None]:
    """Whether cuDNN times its algorithms for shapes that are new to it; afterwards as before.

    It keeps what it chose: a shape that was first met with this off stays untuned in the process.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = on
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
