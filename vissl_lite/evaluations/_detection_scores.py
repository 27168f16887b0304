"""Detections in COCO's results format, and their average precision by pycocotools.

Shape suffixes: K detections of an image, H, W of it.
"""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np
from torch import Tensor

from vissl_lite.evaluations._coco import Coco
from vissl_lite.evaluations._coco_masks import mask_tools

FIRST = {"ap": 0, "ap50": 1, "ap75": 2}  # of COCOeval.stats
MASK_THRESHOLD = 0.5  # He et al. 2017, arXiv 1703.06870


def as_results(
    found: dict[str, Tensor], image_id: int, categories: list[int], place: str
) -> list[dict[str, Any]]:
    """What a detector says of one image, one dict per detection.

    Args:
        found: boxes xyxy [K, 4], labels [K] from 1, scores [K], maybe masks [K, 1, H, W] in [0, 1].
        categories: ids of the labels 1, 2, ...
    """
    boxes_K4 = found["boxes"].double().cpu()
    boxes_K4[:, 2:] -= boxes_K4[:, :2]
    rows: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": categories[label - 1], "bbox": box, "score": score}
        for box, label, score in zip(
            boxes_K4.tolist(), found["labels"].tolist(), found["scores"].double().tolist()
        )
    ]
    if "masks" in found and rows:
        masks_HWK = (found["masks"][:, 0] > MASK_THRESHOLD).permute(1, 2, 0).byte().cpu().numpy()
        for row, runs in zip(rows, mask_tools(place).encode(np.asfortranarray(masks_HWK))):
            row["segmentation"] = {"size": runs["size"], "counts": runs["counts"].decode()}
    return rows


def average_precision(coco: Coco, rows: list[dict[str, Any]], masks: bool) -> dict[str, float]:
    """`box_ap`, the mean over categories and IoU 0.50, 0.55, ..., 0.95, `box_ap50`, `box_ap75`,
    and the same of masks. In [0, 1]; 0 without any detection."""
    kinds = {"box": "bbox", "mask": "segm"} if masks else {"box": "bbox"}
    if not rows:
        return {f"{kind}_{name}": 0.0 for kind in kinds for name in FIRST}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints tables
        stats = {kind: _stats(coco, rows, by) for kind, by in kinds.items()}
    return {f"{kind}_{name}": float(stats[kind][i]) for kind in kinds for name, i in FIRST.items()}


def _stats(coco: Coco, rows: list[dict[str, Any]], by: Any) -> np.ndarray:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth: Any = COCO()
    truth.dataset = {
        "images": coco.images,
        "annotations": copy.deepcopy(coco.objects),
        "categories": coco.categories,
    }
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(rows)), by)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats
