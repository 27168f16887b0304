"""Scores of classes per pixel from a confusion matrix. K classes, N pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def confusion(label_N: Tensor, predicted_N: Tensor, classes: int) -> Tensor:
    """[K, K] counts, rows are true classes; other pixels are left out."""
    known = label_N < classes
    pairs = label_N[known] * classes + predicted_N[known]
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def scores(confusion_KK: Tensor) -> tuple[dict[str, float], list[float]]:
    """`miou` and `pixel_accuracy` in [0, 1], and the IoU of every class, nan where it never occurs.

    IoU(k) = hits(k) / (true(k) + predicted(k) - hits(k)),  miou = mean over k that occur
    """
    counts_KK = confusion_KK.double()
    hits_K = counts_KK.diag()
    iou_K = hits_K / (counts_KK.sum(0) + counts_KK.sum(1) - hits_K)
    total = counts_KK.sum().item()
    accuracy = hits_K.sum().item() / total if total else math.nan
    return {"miou": iou_K.nanmean().item(), "pixel_accuracy": accuracy}, iou_K.tolist()
