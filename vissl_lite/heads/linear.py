"""Legend: N rows, K classes."""

from typing import Annotated

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from vissl_lite import HEADS, ConfigError
from vissl_lite.parallel.class_shards import ShardedLogits, shard_rows_
from vissl_lite.schema import at_least


@HEADS.register("linear")
class Linear(nn.Linear):
    """Classifier: one linear layer, a scorer.

    [N, in_dim] -> logits [N, out_dim]. Weights start from N(0, 0.01^2), biases from 0, as in
    the linear probes of MoCo and SwAV (their published code).

    Args:
        out_dim: number of classes; null takes that of the source.
        shard_classes: with several processes, each keeps the weights of some classes only, with
            their gradients and optimizer state, and logits become `ShardedLogits`. It pays from
            about 100,000 classes on; for hashtag_softmax, cross_entropy, and binary_cross_entropy
            with target: tags. One process has an ordinary layer.

    Raises:
        ConfigError: neither `out_dim` nor the source says how many classes there are.
    """

    scorer = True

    def __init__(
        self,
        out_dim: Annotated[int | None, at_least(1)] = None,
        shard_classes: bool = False,
        *,
        in_dim: int,
        num_classes: int | None = None,
    ):
        classes = num_classes if out_dim is None else out_dim
        if classes is None:
            raise ConfigError("linear: the source has no classes; set out_dim")
        super().__init__(in_dim, classes)
        self.out_dim, self.shard_classes, self.sharded = classes, shard_classes, False

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)

    def shard_(self, mesh: DeviceMesh) -> None:
        """Keeps this rank's rows of weight and bias; ranks call it once, with equal weights.

        Args:
            mesh: one axis, all ranks.
        """
        shard_rows_(self, mesh)
        self.sharded = True

    @property
    def own_parameters(self) -> list[nn.Parameter]:
        """Those that FSDP must ignore and DDP leave alone: their gradients are complete."""
        return list(self.parameters()) if self.sharded else []

    def forward(self, x_ND: Tensor) -> Tensor | ShardedLogits:
        return ShardedLogits.of(x_ND, self) if self.sharded else super().forward(x_ND)
