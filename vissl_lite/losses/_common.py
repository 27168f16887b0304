"""What several losses share.

Shape suffixes: V crops, B images of this process, K classes or prototypes.
"""

from typing import Any

from torch import Tensor

from vissl_lite import ConfigError
from vissl_lite.layers.precision import at_least_fp32
from vissl_lite.parallel.collectives import all_reduce_sum, world_size


def scores_of(outputs: Any, loss: str) -> list[Tensor]:
    """[V, B, K] of every scorer output, at least fp32.

    Raises:
        ConfigError: the model ends without a scorer.
    """
    if not outputs.logits:
        raise ConfigError(
            f"loss: {loss} needs scores; end the heads with a scorer, 'linear' or 'prototypes'"
        )
    return [at_least_fp32(logits) for logits in outputs.logits]


def mean_over_all(total: Tensor, count: Tensor) -> Tensor:
    """`total / count`, with the count of all processes together, times their number.

    Ranks may count differently (untagged images, ignored labels). The mean over ranks of this
    value is the mean over all that was counted, and so are its gradients; it is 0 where nothing
    was counted anywhere. `total` may be a vector of sums that share the count.
    """
    return total * world_size() / all_reduce_sum(count).clamp(min=1)
