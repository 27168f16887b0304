"""LARC.

Legend: N parameters of a group that have a gradient.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from vissl_lite import OPTIMIZERS
from vissl_lite.optimizers._norms import gradients, norms_by_group
from vissl_lite.parallel.shards import local
from vissl_lite.schema import at_least


def larc_scale(
    p_norm_N: Tensor,
    g_norm_N: Tensor,
    trust_coefficient: float,
    weight_decay: float,
    eps: float,
    clip_at: float | None,
) -> Tensor:
    """The factor of g + wd p for each tensor.

    a = tc |p| / (|g| + wd |p| + eps), with a limit of min(a / limit, 1). Where |p| = 0 it is 1 and
    leaves the gradient as it is; where |g| = 0 it is 0, so that weight decay does not act either.
    """
    scale_N = trust_coefficient * p_norm_N / (g_norm_N + weight_decay * p_norm_N + eps)
    if clip_at is not None:
        scale_N = (scale_N / clip_at).clamp(max=1.0)
    return scale_N.where(p_norm_N > 0, 1.0).where(g_norm_N > 0, 0.0)


@OPTIMIZERS.register("larc")
class LARC(Optimizer):
    """LARC: rescales each tensor's gradient by its trust ratio, then steps another optimizer.

    ```
    a = tc |p| / (|g| + wd |p| + eps);   with clip: a = min(a / lr, 1)
    g = a (g + wd p)                     unless |p| = 0 or |g| = 0
    the base optimizer steps with g and weight decay 0
    ```

    apex's formula, which SwAV and SEER were trained with: it takes in biases and norm layers too.
    The ratio acts before the momentum; without `clip` the learning rate still multiplies it. The
    parameter groups are those of the base, so what a schedule sets reaches both. `p.grad` holds
    the rescaled gradient after the step. Tensors may be sharded DTensors.

    Args:
        base: config of the optimizer that steps; its own lr and weight_decay have no effect.
        trust_coefficient: 0.001 as in SwAV and SEER.
        clip: True never lengthens a step, as apex's default; SwAV and SEER have False.
        eps: 1e-8 as in apex.
        lr: learning rate of groups that have none; the schedule sets `group["lr"]`.
        weight_decay: of groups that have none; 1e-6 as in SwAV (SEER: 1e-5).
        params: parameter groups; one with `lars_exclude: True` is left to the base, with its own
            weight decay.
    """

    def __init__(
        self,
        base: Annotated[Any, OPTIMIZERS] = "sgd",
        trust_coefficient: Annotated[float, at_least(0)] = 1e-3,
        clip: bool = False,
        eps: Annotated[float, at_least(0)] = 1e-8,
        lr: Annotated[float, at_least(0)] = 0.3,
        weight_decay: Annotated[float, at_least(0)] = 1e-6,
        *,
        params: list[dict[str, Any]],
    ):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.trust_coefficient, self.clip, self.eps = trust_coefficient, clip, eps
        self.base = OPTIMIZERS.build(base, "optimizer.base", params=self.param_groups)
        self._share()

    def _share(self) -> None:
        self.state, self.param_groups = self.base.state, self.base.param_groups

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.base.load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        loss = None if closure is None else torch.enable_grad()(closure)()
        adapted = [group for group in self.param_groups if not group.get("lars_exclude", False)]
        for group, ps, p_norm_N, g_norm_N in norms_by_group(adapted):
            self._rescale(group, ps, p_norm_N, g_norm_N)
        with _without_decay(adapted):
            self.base.step()
        return loss

    def _rescale(
        self, group: dict[str, Any], ps: list[Tensor], p_norm_N: Tensor, g_norm_N: Tensor
    ) -> None:
        scale_N = larc_scale(
            p_norm_N,
            g_norm_N,
            self.trust_coefficient,
            group["weight_decay"],
            self.eps,
            group["lr"] if self.clip else None,
        )
        grads = local(gradients(ps))
        torch._foreach_add_(grads, local(ps), alpha=group["weight_decay"])
        torch._foreach_mul_(grads, scale_N.unbind())


@contextmanager
def _without_decay(groups: list[dict[str, Any]]) -> Iterator[None]:
    decays = [group["weight_decay"] for group in groups]
    for group in groups:
        group["weight_decay"] = 0.0
    try:
        yield
    finally:
        for group, decay in zip(groups, decays):
            group["weight_decay"] = decay
