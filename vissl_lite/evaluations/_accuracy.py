"""Which place the true class takes among the scores."""

import torch
from torch import Tensor

NOWHERE = 1 << 30


def place(score: Tensor, label: Tensor) -> Tensor:
    """Number of classes that come before the true one: 0 is a hit, < 5 a top-5 hit.

    Of equal scores the smaller class id comes first; a score that is not a number hits nothing.

    Args:
        score: [..., C].
        label: [...], int64.
    """
    own = score.gather(-1, label[..., None])
    class_id = torch.arange(score.shape[-1], device=score.device)
    before = (score > own) | ((score == own) & (class_id < label[..., None]))
    return before.sum(-1).masked_fill(own[..., 0].isnan(), NOWHERE)
