"""What is left behind when the loss stops being a number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vissl_lite import HOOKS
from vissl_lite.data.batch import Batch, Tags
from vissl_lite.errors import NonFiniteLoss
from vissl_lite.hooks._outlook import outlook
from vissl_lite.hooks.base import Hook
from vissl_lite.parallel.collectives import rank

if TYPE_CHECKING:
    from vissl_lite.engine.trainer import Trainer


@HOOKS.register("nan_capture")
class NaNCapture(Hook):
    """Stops at a loss that is nan or inf and saves the batch that led to it.

    The device notes the first bad step and the next log line tells of it; the hook `checkpoint`
    saves nothing in between. Each rank whose loss was bad makes the batch of that step again (a
    function of seed and step) and saves it as `RUN/nan/step-N-rank-R.pt`, which
    `torch.load(file, weights_only=True)` reads as a dict:

        step, rank; views: uint8 [V, B, H, W, C] per view group; index_B; names: of the B images;
        label_B and tags (a list of class ids per image), or None

    Raises:
        NonFiniteLoss: on all ranks, after the bad record has been logged.
    """

    def on_log(self, trainer: Trainer, record: dict[str, Any]) -> None:
        if (step := record.get("bad_step")) is None:
            return
        folder = trainer.run_dir / "nan"
        if trainer.meters.first_bad.item() == step:  # this rank's own loss
            batch = trainer.loader.batch_of(step)
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(
                as_plain(batch, trainer.parts.source), folder / f"step-{step}-rank-{rank()}.pt"
            )
        trainer.journal.log(record)
        raise NonFiniteLoss(
            f"the loss is not finite since step {step}; batch saved in {folder}; {outlook(trainer)}"
        )


def as_plain(batch: Batch, source: Any) -> dict[str, Any]:
    """A batch as tensors, lists and strings only."""
    return {
        "step": batch.step,
        "rank": rank(),
        "views": [view.cpu() for view in batch.views],
        "index_B": batch.index_B.cpu(),
        "names": [source[index].name for index in batch.index_B.tolist()],
        "label_B": None if batch.label_B is None else batch.label_B.cpu(),
        "tags": None if batch.tags is None else rows(batch.tags),
    }


def rows(tags: Tags) -> list[list[int]]:
    """The class ids of each image."""
    return [row.tolist() for row in tags.values_T.cpu().split(tags.counts_B().tolist())]
