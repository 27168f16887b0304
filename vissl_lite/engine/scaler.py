"""The loss scale of fp16, for gradients of which each process may hold a piece."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from vissl_lite.parallel.collectives import all_reduce_sum
from vissl_lite.parallel.shards import local


class Scaler(torch.amp.GradScaler):
    """As torch's, but each process looks at what it holds, and all leave out the same steps.

    torch's own (2.15) takes the gradients of one device mesh, and classes that are spread over the
    processes lie on another than the layers. It also copies a scale on the GPU to gradients in host
    memory without waiting for the copy, and would divide them by whatever was there: this one lives
    where the gradients do.

    Args:
        enabled: otherwise it does nothing.
        device: of the gradients.
        init_scale: torch's default. Halved whenever a gradient is not finite (Micikevicius et al.
            2018, Mixed precision training, section 3.2).
    """

    def __init__(self, enabled: bool, device: torch.device, init_scale: float = 2.0**16):
        super().__init__(device.type, init_scale, enabled=enabled)
        self.scale(torch.zeros((), device=device))

    def _unscale_grads_(
        self, optimizer: Optimizer, inv_scale: Tensor, found_inf: Tensor, allow_fp16: bool
    ) -> dict[torch.device, Tensor]:
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        grads = local(p.grad for p in parameters if p.grad is not None)
        for dtype in {grad.dtype for grad in grads}:
            alike = [grad for grad in grads if grad.dtype == dtype]
            torch._amp_foreach_non_finite_check_and_unscale_(alike, found_inf, inv_scale)
        found_inf = all_reduce_sum(found_inf).clamp_(max=1.0)  # fused optimizers ask for a 1
        return {found_inf.device: found_inf}
