"""Shape suffixes: Q queries, B queries of a block, G images of the gallery, D features."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import torch
from torch import Tensor

from vissl_lite import EVALUATIONS, TRANSFORMS
from vissl_lite.evaluations._accuracy import place
from vissl_lite.evaluations._descriptors import check_whiten, descriptors, unit_scaling
from vissl_lite.parallel.collectives import all_gather_cat, all_reduce_sum, rank, world_size

if TYPE_CHECKING:
    from vissl_lite.engine.bench import Bench

COSINES = 1 << 23  # of one block of queries: 100 MiB with what they are compared with

EDITS = [
    {"name": "random_resized_crop", "scale": [0.2, 0.9]},
    "random_horizontal_flip",
    {"name": "color_jitter", "brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.1},
    {"name": "gaussian_blur", "p": 0.5},
    {"name": "random_erasing", "p": 0.5, "scale": [0.05, 0.2], "fill": "noise"},
    {"name": "corruption", "kind": "jpeg_compression", "severity": 3},
]


@EVALUATIONS.register("copy_detection")
class CopyDetection:
    """Copy detection by cosine of frozen features: which image is an edited copy of which one.

    Queries are the test images, edited at random; the gallery are the untouched test images and,
    as distractors, the train images, whose classes may be others, or none. The edits stand for
    those of Copydays (Douze et al. 2009): crops that leave out 10 to 80 % of the image, colours,
    blur, something pasted, JPEG of quality 15, or of 58 below 64 pixels. Scores are comparable only
    for equal edits and images. Processes share out the queries.

        p(q) = cosine of query q with its original
        muAP = mean over q of  #{q': p(q') >= p(q)} / #{(q', g): cosine >= p(q)}

    muAP is the micro average precision of the Image Similarity Challenge (Douze et al. 2021, arXiv
    2106.09672) over all pairs: unlike mAP it wants cosines that one threshold fits for all queries.

    Metrics, in [0, 1]: `muAP`; `mAP`, as for Copydays, here the mean of 1 / rank of the original;
    `recall_at_1`. Of equal cosines the earlier image is ranked first, originals before distractors.

    Args:
        edits: transforms of the queries in place of the labelled ones; default: as above.
        whiten: number of principal components of the train images kept, as in `retrieval`;
            default: no whitening.
        distractors: whether the train images are in the gallery.
        layer: trunk layer or "embedding"; default: the layer that feeds the heads.

    Raises:
        ConfigError: more components than features or train images.
    """

    classes_by_name = True

    def __init__(
        self,
        edits: Annotated[list | None, TRANSFORMS] = None,
        whiten: int | None = None,
        distractors: bool = True,
        layer: str | None = None,
    ):
        check_whiten(whiten, "evaluations.copy_detection")
        self.edits = EDITS if edits is None else edits
        self.whiten, self.distractors, self.layer = whiten, distractors, layer

    def check(self, bench: Bench) -> None:
        bench.check_layers(self.layer)

    def evaluate(self, bench: Bench) -> dict[str, float]:
        layers = [self.layer or bench.model.layer]
        where = "evaluations.copy_detection"
        edited = replace(bench.labelled, transforms=self.edits)
        seen = [bench.seen("test", edited, layers, place=f"{where}.edits")]  # first: may be wrong
        seen += [bench.features("test", layers), descriptors(bench, "train", layers[0])]
        query_QD, original_QD, train_ND = (found.features[layers[0]] for found in seen)
        scaled = unit_scaling(train_ND, self.whiten, bench.device, where)
        gallery_GD = torch.cat([original_QD, train_ND]) if self.distractors else original_QD
        own_Q = torch.arange(rank(), len(query_QD), world_size())
        return scores(scaled(query_QD[own_Q]), scaled(gallery_GD), own_Q.to(bench.device))


def scores(query_QD: Tensor, gallery_GD: Tensor, own_Q: Tensor) -> dict[str, float]:
    """The metrics over the queries of all processes.

    Args:
        query_QD, gallery_GD: of unit length; queries of this process.
        own_Q: row of each query's original in the gallery.
    """
    positive_Q = torch.linalg.vecdot(query_QD, gallery_GD[own_Q])
    threshold_Q = all_gather_cat(positive_Q.cpu()).sort().values.to(positive_Q.device)
    reached, places = torch.zeros(len(threshold_Q) + 1, dtype=torch.int64), []
    for block in torch.arange(len(own_Q)).split(max(1, COSINES // len(gallery_GD))):
        cosine_BG = query_QD[block] @ gallery_GD.T
        cosine_BG.scatter_(1, own_Q[block, None], positive_Q[block, None])  # equal to its threshold
        places.append(place(cosine_BG, own_Q[block]).cpu())
        below = torch.searchsorted(threshold_Q, cosine_BG.flatten(), right=True)
        reached += below.bincount(minlength=len(reached)).cpu()
    place_Q = all_gather_cat(torch.cat(places)).double()
    return {
        "muAP": micro_average_precision(threshold_Q.cpu(), all_reduce_sum(reached)),
        "mAP": (1 / (place_Q + 1)).mean().item(),
        "recall_at_1": (place_Q == 0).double().mean().item(),
    }


def micro_average_precision(threshold_Q: Tensor, reached: Tensor) -> float:
    """Mean precision at the thresholds.

    Args:
        threshold_Q: cosines of the true pairs, ascending.
        reached: [Q + 1]; number i is how many pairs reach i of the thresholds and no more.
    """
    first_Q = torch.searchsorted(threshold_Q, threshold_Q)  # of those that are equal
    pairs_Q = reached.flip(0).cumsum(0).flip(0)[first_Q + 1]
    return ((len(threshold_Q) - first_Q) / pairs_Q.double()).mean().item()
