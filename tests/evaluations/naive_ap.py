"""COCO's average precision by its definition, in float64, one pair of objects after the other."""

import numpy as np

from vissl_lite.evaluations._coco_masks import decoded

IOUS = np.linspace(0.5, 0.95, 10).round(2)


def naive_ap(coco, rows, threshold, iou_of):
    """Mean over categories of the precision at 101 recalls, for matches of one IoU or more.

    Lin et al. 2014, arXiv 1405.0312. An object is matched once, by the best score first; what
    covers a crowd is neither right nor wrong.
    """
    aps = []
    for category in (category["id"] for category in coco.categories):
        truth = [entry for entry in coco.objects if entry["category_id"] == category]
        count = sum(not entry["iscrowd"] for entry in truth)
        if not count:
            continue
        verdicts, taken = [], set()
        own = [row for row in rows if row["category_id"] == category]
        for row in sorted(own, key=lambda row: -row["score"]):
            candidates = [e for e in truth if e["image_id"] == row["image_id"]]
            free = [e for e in candidates if not e["iscrowd"] and e["id"] not in taken]
            best = max(free, key=lambda e: iou_of(row, e), default=None)
            if best is not None and iou_of(row, best) >= threshold:
                taken.add(best["id"])
                verdicts.append(True)
            elif not any(e["iscrowd"] and iou_of(row, e) >= threshold for e in candidates):
                verdicts.append(False)
        hits = np.cumsum(verdicts)
        recall, precision = hits / count, hits / np.arange(1, len(hits) + 1)
        at = [precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)]
        aps.append(np.mean(at))
    return np.mean(aps)


def box_iou(row, entry):
    (a, b, c, d), (e, f, g, h) = row["bbox"], entry["bbox"]
    sides = min(a + c, e + g) - max(a, e), min(b + d, f + h) - max(b, f)
    shared = max(0, sides[0]) * max(0, sides[1])
    return shared / (c * d if entry["iscrowd"] else c * d + g * h - shared)


def mask_iou(row, entry):
    a, b = (decoded(x["segmentation"], x["segmentation"]["size"], "here") > 0 for x in (row, entry))
    return (a & b).sum() / (a.sum() if entry["iscrowd"] else (a | b).sum())


def naive_scores(coco, rows, masks):
    """The numbers of `average_precision`."""
    found = {}
    for kind, iou_of in {"box": box_iou, "mask": mask_iou}.items() if masks else [("box", box_iou)]:
        at = [naive_ap(coco, rows, threshold, iou_of) for threshold in IOUS]
        found |= {f"{kind}_ap": np.mean(at), f"{kind}_ap50": at[0], f"{kind}_ap75": at[5]}
    return found
