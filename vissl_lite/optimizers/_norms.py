"""L2 norms of many tensors, whole or sharded, without a word from the device to the host.

Legend: N tensors.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vissl_lite.parallel.shards import norms


def with_gradient(group: dict[str, Any]) -> list[Tensor]:
    """The parameters of a group that have a gradient; a frozen one has None and is left alone."""
    return [p for p in group["params"] if p.grad is not None]


def gradients(params: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of parameters, each of which has one."""
    return [p.grad for p in params if p.grad is not None]


def norms_by_group(
    groups: Sequence[dict[str, Any]],
) -> list[tuple[dict[str, Any], list[Tensor], Tensor, Tensor]]:
    """(group, its parameters that have a gradient, |p| of each, |g| of each), all norms in one go.

    Groups without any gradient are left out.
    """
    members = [(group, ps) for group in groups if (ps := with_gradient(group))]
    if not members:
        return []
    params = [p for _, ps in members for p in ps]
    p_norm_N, g_norm_N = norms(params + gradients(params)).chunk(2)
    sizes = [len(ps) for _, ps in members]
    return [
        (group, ps, p_norm, g_norm)
        for (group, ps), p_norm, g_norm in zip(
            members, p_norm_N.split(sizes), g_norm_N.split(sizes)
        )
    ]
