"""From measured numbers to words: what is wrong, the likely cause, what to try."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vissl_lite.engine.trainer import Trainer

NEAR = 0.01  # share of ln K within which a loss counts as ln K


@dataclass(frozen=True)
class Limits:
    """Below which a number is a finding."""

    std: float
    rank: float
    invariance: float


def finding(record: dict[str, Any], log_k: float | None, limits: Limits) -> str | None:
    """The name of the first thing that is wrong, the most specific first; None where nothing is.

    Args:
        record: with "loss", "embedding_std", "effective_rank" and, where there are two crops,
            "same_image_cosine" and "other_image_cosine".
        log_k: ln of the number of prototypes; None without prototypes.
    """
    if log_k is not None and abs(record["loss"] - log_k) < NEAR * log_k:
        return "stuck at ln K"
    if record["embedding_std"] < limits.std:
        return "collapse"
    if record["effective_rank"] < limits.rank:
        return "dimensional collapse"
    return "no invariance" if invariance(record) < limits.invariance else None


def invariance(record: dict[str, Any]) -> float:
    """1 when the crops of an image coincide, 0 when they are no more alike than those of two."""
    same, other = record.get("same_image_cosine", 1.0), record.get("other_image_cosine", 0.0)
    return (same - other) / max(1 - other, 1e-6)  # 0 / 0 where all is one point


def verdict(name: str, record: dict[str, Any], trainer: Trainer) -> str:
    """What the user reads about a finding."""
    symptom, remedies = VERDICTS[name]
    tips = "; ".join(remedies(trainer))
    return f"{name}: {symptom.format_map(record)}. Try, in this order: {tips}"


def _stuck(trainer: Trainer) -> list[str]:
    """The list in the README of SwAV's code, "Common Issues", as far as it applies to this loss."""
    loss, heads = trainer.loss, trainer.model.heads
    tips = {
        "loss.epsilon=0.03": getattr(loss, "epsilon", 0.0) > 0.03,
        "another optimizer.lr": True,
        "a larger loss.freeze_prototypes_steps": hasattr(loss, "freeze_prototypes_steps"),
        "a larger loss.hard_assignment_steps": hasattr(loss, "hard_assignment_steps"),
        "heads without BatchNorm": any("BatchNorm" in type(m).__name__ for m in heads.modules()),
        "easier augmentations or fewer crops": True,
    }
    return [tip for tip, applies in tips.items() if applies]


def _collapsed(trainer: Trainer) -> list[str]:
    """What keeps methods without negatives from collapsing: BYOL (arXiv 2006.07733, section 5),
    SimSiam (arXiv 2011.10566, section 4)."""
    teacher = ["the head predictor, last in heads", "a teacher_momentum nearer to 1"]
    own = teacher if trainer.model.teacher is not None else []
    return [*own, "a lower optimizer.lr or a longer warm-up", "heads with BatchNorm"]


def _few_directions(trainer: Trainer) -> list[str]:
    """Jing et al. 2022, arXiv 2110.09348: a projection head and milder augmentation prevent it."""
    head = [] if len(trainer.model.heads) else ["a head mlp between trunk and loss"]
    return [*head, "easier augmentations", "a lower optimizer.lr", "a larger train.batch_size"]


def _not_alike(trainer: Trainer) -> list[str]:
    return ["easier augmentations or larger crops", "another optimizer.lr", "a longer warm-up"]


VERDICTS = {
    "stuck at ln K": (
        "the loss {loss:.3f} is ln K, as if every image belonged to all prototypes alike",
        _stuck,
    ),
    "collapse": (
        "all images get nearly the same embedding (embedding_std {embedding_std:.3f}, healthy is"
        " near 1)",
        _collapsed,
    ),
    "dimensional collapse": (
        "the embeddings vary in hardly more than one direction (effective_rank"
        " {effective_rank:.1f})",
        _few_directions,
    ),
    "no invariance": (
        "crops of one image are no more alike than crops of two (cosines {same_image_cosine:.3f}"
        " and {other_image_cosine:.3f})",
        _not_alike,
    ),
}
