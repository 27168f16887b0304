"""What a run that ends on nan leaves to go on from, and what usually helps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vissl_lite.engine.trainer import Trainer


def outlook(trainer: Trainer) -> str:
    """What there is to go on from, and what usually helps."""
    good = trainer.checkpointer.latest()
    there = f"last good checkpoint: {good}" if good else "no checkpoint yet"
    return f"{there}; try {', '.join(remedies(trainer))}"


def remedies(trainer: Trainer) -> list[str]:
    """What usually helps, without what is set already."""
    config, tips = trainer.config, ["a lower optimizer.lr or a longer warm-up"]
    if trainer.parts.numerics.precision == "fp16":
        tips.append("precision=bf16")
    if config.train.clip_grad_norm is None:
        tips.append("train.clip_grad_norm=1")
    if hasattr(trainer.loss, "temperature"):
        tips.append(f"a loss.temperature above {trainer.loss.temperature:g}")
    return tips
