"""Floating-point operations of a model, and the share of a device's peak that a rate reaches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vissl_lite.model import SSLModel
from vissl_lite.parallel.shards import tensors_of

# Dense 16-bit peaks in FLOP/s, from the makers' data sheets.
PEAKS = {
    "V100": 125e12,
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
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
    """The device's 16-bit peak, or None where it is not in the table (CPUs, unknown GPUs)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in PEAKS.items() if key in name), None)
