"""Where half precision is not enough: norms, softmaxes, prototypes, Sinkhorn."""

import contextlib

import torch
from torch import Tensor


def at_least_fp32(x: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay what they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def full_precision(x: Tensor) -> contextlib.AbstractContextManager:
    """A context in which autocast lowers nothing on the device of `x`."""
    if not torch.amp.is_autocast_available(x.device.type):  # the meta device has none
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, enabled=False)
