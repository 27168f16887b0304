from torch import nn

from vissl_lite import HEADS, ConfigError


@HEADS.register("linear")
class Linear(nn.Linear):
    """Classifier: one linear layer, a scorer.

    [N, in_dim] -> logits [N, out_dim]. Weights start from N(0, 0.01^2), biases from 0, as in
    the linear probes of MoCo and SwAV (their published code).

    Args:
        out_dim: number of classes; null takes that of the source.

    Raises:
        ConfigError: neither `out_dim` nor the source says how many classes there are.
    """

    scorer = True

    def __init__(self, out_dim: int | None = None, *, in_dim: int, num_classes: int | None = None):
        classes = num_classes if out_dim is None else out_dim
        if classes is None:
            raise ConfigError("linear: the source has no classes; set out_dim")
        super().__init__(in_dim, classes)
        self.out_dim = classes

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)
