"""LARS.

Legend: N parameters of a group that have a gradient.
"""

from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from vissl_lite import OPTIMIZERS
from vissl_lite.optimizers._norms import gradients, norms_by_group, with_gradient
from vissl_lite.parallel.shards import local
from vissl_lite.schema import at_least, between


def lars_scale(p_norm_N: Tensor, d_norm_N: Tensor, eta: float) -> Tensor:
    """eta |p| / |d|, and 1 where either is 0."""
    adapts_N = (p_norm_N > 0) & (d_norm_N > 0)
    return torch.where(adapts_N, eta * p_norm_N / d_norm_N, 1.0)


@OPTIMIZERS.register("lars")
class LARS(Optimizer):
    """LARS: SGD whose step is eta |p| long for every tensor (You et al. 2017, arXiv 1708.03888).

    ```
    d  = g + wd p
    d  = d eta |p| / |d|       unless |p| = 0 or |d| = 0 or the group has lars_exclude
    mu = m mu + d
    p  = p - lr mu
    ```

    The form of Barlow Twins, VICReg, DINO and VISSL: the ratio has |g + wd p| below, and the
    learning rate acts after the momentum. solo-learn and lightly have |g| + wd |p| + eps instead.
    `p.grad` holds d after the step. Tensors may be sharded DTensors.

    Args:
        lr: learning rate of groups that have none; the schedule sets `group["lr"]`.
        momentum: 0.9 in all of them.
        eta: trust coefficient, 0.001 in all of them; solo-learn's CIFAR recipes have 0.02.
        weight_decay: of groups that have none; 1e-6 as in SimCLR, BYOL and Barlow Twins.
        params: parameter groups; one with `lars_exclude: True` takes plain SGD steps.
    """

    def __init__(
        self,
        lr: Annotated[float, at_least(0)] = 0.2,
        momentum: Annotated[float, between(0, 1)] = 0.9,
        eta: Annotated[float, at_least(0)] = 1e-3,
        weight_decay: Annotated[float, at_least(0)] = 1e-6,
        *,
        params: list[dict[str, Any]],
    ):
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "eta": eta, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            _decay(group)
        adapted = [group for group in self.param_groups if not group.get("lars_exclude", False)]
        for group, ps, p_norm_N, d_norm_N in norms_by_group(adapted):
            scale_N = lars_scale(p_norm_N, d_norm_N, group["eta"])
            torch._foreach_mul_(local(gradients(ps)), scale_N.unbind())
        for group in self.param_groups:
            self._move(group)
        return loss

    def _move(self, group: dict[str, Any]) -> None:
        ps = with_gradient(group)
        if not ps:
            return
        for p in ps:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momenta = local([self.state[p]["momentum"] for p in ps])
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, local(gradients(ps)))
        torch._foreach_add_(local(ps), momenta, alpha=-group["lr"])


def _decay(group: dict[str, Any]) -> None:
    ps = with_gradient(group)
    if ps and group["weight_decay"] != 0:
        grads = local(gradients(ps))
        torch._foreach_add_(grads, local(ps), alpha=group["weight_decay"])
