"""Shape suffixes: V crops of the first view group, B images, N = V * B, F features, C classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vissl_lite import HOOKS, ConfigError
from vissl_lite.data.batch import Batch
from vissl_lite.hooks.base import Hook
from vissl_lite.model import Outputs
from vissl_lite.parallel.collectives import all_reduce_sum, mean_over_ranks

if TYPE_CHECKING:
    from vissl_lite.engine.trainer import Trainer

UNLABELLED = -1


@HOOKS.register("probe")
class Probe(Hook):
    """Online linear probe: a classifier trained beside the model on its detached features.

    Every batch is classified before the classifier learns from it, so `probe_top1` of a record is
    an accuracy on new views of train images, over the steps since the last record. It costs one
    small matrix product per step and moves no gradient into the model. Features are those of the
    first view group (the large crops), standardised over the batch; the classifier starts from 0.
    Images without a label are skipped.

    Args:
        lr, momentum: of the classifier's SGD. On digits, with SimCLR on batches of 16 and of 128
            images, `probe_top1` came within 0.02 of that of the best rate from 0.003 to 1.

    Raises:
        ConfigError: the source has no labels.
    """

    def __init__(self, lr: float = 0.03, momentum: float = 0.9):
        self.lr, self.momentum = lr, momentum
        self.saved: dict[str, Any] = {}

    def on_start(self, trainer: Trainer) -> None:
        classes = trainer.parts.source.num_classes
        if classes is None or trainer.parts.example(1).label_B is None:
            raise ConfigError(
                f"hooks.probe: data.source {trainer.config.data.source['name']!r} has no labels to"
                " learn from; leave the hook out with ~hooks.probe"
            )
        width: int = trainer.model.trunk.widths[trainer.model.layer]  # pyright: ignore
        self.probe = OnlineProbe(width, classes, self.lr, self.momentum).to(trainer.device)
        if self.saved:
            self.probe.load_state_dict(self.saved)

    def after_backward(self, trainer: Trainer, outputs: Outputs, batch: Batch) -> None:
        features_VBF = outputs.features[: len(batch.views[0])].detach()
        label_B = batch.label_B
        if label_B is None:  # the images of a mixture may all lack labels, on this rank alone
            label_B = torch.full_like(batch.index_B, UNLABELLED)
        self.probe.learn(features_VBF.flatten(0, 1).float(), label_B.repeat(len(features_VBF)))

    def on_log(self, trainer: Trainer, record: dict[str, Any]) -> None:
        hits, seen = all_reduce_sum(self.probe.count).tolist()
        self.probe.count.zero_()
        if seen:
            record["probe_top1"] = hits / seen

    def state_dict(self) -> dict[str, Any]:
        return self.probe.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.saved = state  # the classifier is built in on_start


class OnlineProbe(nn.Module):
    """A linear classifier and its own SGD; weights, velocity and counts stay on the device.

    z = (standardise(x), 1);  G = (softmax(z W) - onehot) / labelled rows
    v = momentum v + z^T G, averaged over processes;  W = W - lr v
    """

    weight: Tensor  # [dim + 1, classes], the last row is the bias
    velocity: Tensor
    count: Tensor  # labelled rows that were classified right, and all of them

    def __init__(self, dim: int, classes: int, lr: float, momentum: float):
        super().__init__()
        self.lr, self.momentum = lr, momentum
        self.register_buffer("weight", torch.zeros(dim + 1, classes))
        self.register_buffer("velocity", torch.zeros(dim + 1, classes))
        self.register_buffer("count", torch.zeros(2))

    @torch.no_grad()
    def learn(self, x_NF: Tensor, label_N: Tensor) -> None:
        """Counts the hits among the rows with a label (>= 0), then takes one step on them."""
        z_NF = F.pad(F.batch_norm(x_NF, None, None, training=True), (0, 1), value=1.0)
        logits_NC, known_N = z_NF @ self.weight, label_N >= 0
        right_N = known_N & (logits_NC.argmax(1) == label_N)
        self.count += torch.stack([right_N.sum(), known_N.sum()])
        target_NC = torch.zeros_like(logits_NC).scatter_(1, label_N.clamp(min=0)[:, None], 1)
        g_NC = (logits_NC.softmax(1) - target_NC) * known_N[:, None] / known_N.sum().clamp(min=1)
        self.velocity.mul_(self.momentum).add_(mean_over_ranks(z_NF.T @ g_NC))
        self.weight.sub_(self.velocity, alpha=self.lr)
