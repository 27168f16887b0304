"""Floating-point operations of a model, and the share of a device's peak that a rate reaches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vissl_lite.model import SSLModel
from vissl_lite.parallel.shards import tensors_of

# Dense 16-bit peaks in 1e12 FLOP/s, from the makers' data sheets.
TFLOPS = {
    "V100": 125.0,
    "A100": 312.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "H200": 989.0,
    "B200": 2250.0,
}


def training_flops(model: SSLModel, views: Sequence[Tensor]) -> float:
    """FLOP of a training step per image: three forward passes, 2 FLOP per multiply-add.

    Counted on the meta device, without computing anything.
    """
    few = [view[:, :1].to("meta") for view in views]
    state = {name: t.to("meta") for name, t in tensors_of(model).items()}
    was_training = model.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        torch.func.functional_call(model.eval(), state, (few,))
    model.train(was_training)
    return 3.0 * counter.get_total_flops()


def peak_flops(device: torch.device) -> float | None:
    """The device's 16-bit peak in FLOP/s; None where the table has none (CPUs, unknown GPUs)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((1e12 * peak for key, peak in TFLOPS.items() if key in name), None)
