"""Is it still learning? Legend: V crops, B images, D columns of the embedding."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor

from vissl_lite import HOOKS
from vissl_lite.data.batch import Batch
from vissl_lite.hooks._spectrum import effective_rank, embedding_std, pair_cosines
from vissl_lite.hooks._verdicts import Limits, finding, verdict
from vissl_lite.hooks.base import Hook
from vissl_lite.model import Outputs
from vissl_lite.parallel.collectives import gather_with_grad, mean_over_ranks, world_size
from vissl_lite.schema import at_least

if TYPE_CHECKING:
    from vissl_lite.engine.trainer import Trainer

ROWS = 1024  # of all processes together: what the numbers are computed from
CROPS = 2  # of them: the first ones, which are the large ones in multi-crop
NUMBERS = ("embedding_std", "effective_rank", "same_image_cosine", "other_image_cosine")


@HOOKS.register("diagnose")
class Diagnose(Hook):
    """Watches the embeddings for collapse; warns once with the likely cause and what to try.

    Adds to each training record, from the first two crops of up to 512 images of the step just
    done: `embedding_std` (1: spread over the sphere, 0: collapsed), `effective_rank` of the centred
    embeddings, `same_image_cosine` and `other_image_cosine`, the mean over pairs of crops.
    docs/diagnosis.md says how to read them. A loss that uses labels or tags gets the numbers and no
    verdict: it may well want all images of a class in one point.

    Args:
        std_threshold: below it the embeddings have collapsed; at 0.1 different images have a mean
            cosine of 0.99 or so. Small trainings on digits end at 0.3 to 0.97, collapsed ones below
            0.08 (docs/diagnosis.md).
        rank_threshold: below it they vary along hardly more than one direction.
        invariance_threshold: below it crops of one image are no more alike than crops of two; of
            (same - other) / (1 - other) in terms of the two cosines.
        patience: a verdict needs this many log lines in a row.
        grace_steps: first steps without verdicts; null: a tenth of the training, at most 1000.
        stop: end the training at a verdict.
    """

    def __init__(
        self,
        std_threshold: float = 0.1,
        rank_threshold: float = 2.0,
        invariance_threshold: float = 0.02,
        patience: Annotated[int, at_least(1)] = 5,
        grace_steps: int | None = None,
        stop: bool = False,
    ):
        self.limits = Limits(std_threshold, rank_threshold, invariance_threshold)
        self.patience, self.grace_steps, self.stop = patience, grace_steps, stop
        self.found: str | None = None
        self.in_a_row = 0
        self.told: list[str] = []

    def on_start(self, trainer: Trainer) -> None:
        tenth = min(1000, trainer.parts.total_steps // 10)
        self.grace = tenth if self.grace_steps is None else self.grace_steps

    def after_backward(self, trainer: Trainer, outputs: Outputs, batch: Batch) -> None:
        """Keeps references only; the embedding is small beside the activations."""
        self.z_VBD = outputs.embedding.detach()
        self.prototypes = [logits.shape[-1] for logits in outputs.logits]

    def on_log(self, trainer: Trainer, record: dict[str, Any]) -> None:
        if "bad_step" in record:
            return
        record.update(measure(self.z_VBD))
        if not getattr(trainer.loss, "needs", ()) and trainer.step > self.grace:
            self._judge(trainer, record)

    def _judge(self, trainer: Trainer, record: dict[str, Any]) -> None:
        logs = [math.log(count) for count in self.prototypes]
        log_k = sum(logs) / len(logs) if logs else None
        name = finding(record, log_k, self.limits)
        self.in_a_row = self.in_a_row + 1 if name == self.found else 1
        self.found = name
        if name is None or self.in_a_row < self.patience:
            return
        if name not in self.told:
            self.told.append(name)
            trainer.journal.note(verdict(name, record, trainer), "warning")
        if self.stop:
            trainer.request_stop(f"hooks.diagnose: {name}")

    def state_dict(self) -> dict[str, Any]:
        return {"found": self.found, "in_a_row": self.in_a_row, "told": self.told}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.found, self.in_a_row, self.told = (
            state["found"],
            state["in_a_row"],
            list(state["told"]),
        )


@torch.no_grad()
def measure(z_VBD: Tensor) -> dict[str, float]:
    """The numbers by name, the same on all ranks; read from the device once.

    The cosines need two crops and two images.
    """
    z_VBD = sample(z_VBD.float())
    z_ND = z_VBD.flatten(0, 1)
    numbers = [embedding_std(z_ND), effective_rank(z_ND - z_ND.mean(0)).float()]
    if min(z_VBD.shape[:2]) > 1:
        numbers += pair_cosines(z_VBD)
    return dict(zip(NUMBERS, mean_over_ranks(torch.stack(numbers)).tolist()))


def sample(z_VBD: Tensor) -> Tensor:
    """The first crops of the first images of every rank, together at most about `ROWS` rows."""
    z_VBD = z_VBD[:CROPS]
    images = max(1, ROWS // (len(z_VBD) * world_size()))
    rows = gather_with_grad(z_VBD[:, :images].transpose(0, 1).flatten(1).contiguous())
    return rows.unflatten(1, (len(z_VBD), -1)).transpose(0, 1)
