"""SGD."""

from typing import Annotated, Any

import torch

from vissl_lite import OPTIMIZERS
from vissl_lite.errors import ConfigError
from vissl_lite.optimizers._kernel import fastest, keep_kernel
from vissl_lite.schema import at_least, between


@OPTIMIZERS.register("sgd")
def sgd(
    lr: Annotated[float, at_least(0)] = 0.1,
    momentum: Annotated[float, between(0, 1)] = 0.9,
    nesterov: bool = False,
    weight_decay: Annotated[float, at_least(0)] = 1e-4,
    *,
    params: list[dict[str, Any]],
) -> torch.optim.SGD:
    """SGD with momentum: d = g + wd p; mu = m mu + d; p = p - lr mu.

    torch.optim.SGD with the fastest implementation for the tensors at hand. Momentum and weight
    decay are those of ResNet on ImageNet (He et al. 2016, arXiv 1512.03385, section 3.4).

    Args:
        lr: learning rate of groups that have none; the schedule sets `group["lr"]`.
        nesterov: steps along d + m mu instead of mu.
        weight_decay: of groups that have none.
        params: parameter groups.

    Raises:
        ConfigError: `nesterov` without momentum.
    """
    if nesterov and momentum <= 0:
        raise ConfigError("optimizer.nesterov: needs momentum; set momentum, or nesterov: false")
    kernel = fastest(params, fused_shards=False)  # fused SGD has no rule for DTensor (torch 2.15)
    optimizer = torch.optim.SGD(
        params, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, **kernel
    )
    keep_kernel(optimizer, kernel)
    if momentum > 0:  # the fused kernel cannot start a parameter that was frozen later than others
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer
