"""Shape suffixes: Q queries, B queries of a block, G images of the gallery, D features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from vissl_lite import EVALUATIONS, ConfigError
from vissl_lite.evaluations._descriptors import check_whiten, descriptors, unit_scaling
from vissl_lite.parallel.collectives import all_reduce_sum, rank, world_size

if TYPE_CHECKING:
    from vissl_lite.engine.bench import Bench

COSINES = 1 << 23  # of one block of queries: 300 MiB with their order and ranks


@EVALUATIONS.register("retrieval")
class Retrieval:
    """Image retrieval by cosine of frozen features: mAP and recall@k; relevant: same class.

    Every test image with a label is a query; the gallery are the train images, or the other test
    images. Of these, images without a label and of classes that no query has are distractors: the
    class names of train and test images may differ. Queries whose class is not in the gallery are
    left out. Processes share out the queries.

        AP(q) = mean over the relevant g of  (relevant among the first r) / r,  r = rank of g
        recall@k = share of queries with a relevant image among the first k

    Images of equal cosine are ranked in the order of their source. Recall@k is that of metric
    learning (Jegou et al. 2011; Song et al. 2016, arXiv 1511.06452). Whitening is that of Jegou and
    Chum 2012: unit length, PCA of the train images, components scaled to variance 1, unit length.
    With several `scales` an image is described by the mean of its features at several sizes, each
    of length 1, as by Radenovic et al. 2019 (arXiv 1711.02512); they and DINO take three sizes,
    [1, 0.7071, 0.5].

    Metrics, in [0, 1]: `mAP`, and `recall_at_1` for every k.

    Args:
        gallery: "train", or "test": each query against all test images but itself.
        k: of recall@k.
        whiten: number of principal components kept; default: no whitening.
        scales: sizes of the images over `labelled.size`; one forward pass for each.
        layer: trunk layer or "embedding"; default: the layer that feeds the heads.

    Raises:
        ConfigError: a k below 1, a scale that is not positive, more components than features or
            train images, or no query that has a relevant image.
    """

    classes_by_name = True

    def __init__(
        self,
        gallery: Literal["train", "test"] = "train",
        k: tuple[int, ...] = (1, 5, 10),
        whiten: int | None = None,
        scales: tuple[float, ...] = (1.0,),
        layer: str | None = None,
    ):
        if not k or min(k) < 1:
            raise ConfigError(f"evaluations.retrieval.k: {list(k)}; needs whole numbers from 1")
        if not scales or min(scales) <= 0:
            raise ConfigError(
                f"evaluations.retrieval.scales: {list(scales)}; needs numbers above 0"
            )
        check_whiten(whiten, "evaluations.retrieval")
        self.gallery, self.k, self.layer = gallery, k, layer
        self.whiten, self.scales = whiten, scales

    def check(self, bench: Bench) -> None:
        bench.check_layers(self.layer)

    def evaluate(self, bench: Bench) -> dict[str, float]:
        layer = self.layer or bench.model.layer
        train, test = (descriptors(bench, s, layer, self.scales) for s in ("train", "test"))
        gallery, place = train if self.gallery == "train" else test, "evaluations.retrieval"
        scaled = unit_scaling(train.features[layer], self.whiten, bench.device, place)
        query_Q = (test.label_N >= 0).nonzero()[:, 0]
        own_Q = query_Q[rank() :: world_size()]
        sums = score_sums(
            (scaled(test.features[layer][own_Q]), test.label_N[own_Q].to(bench.device)),
            (scaled(gallery.features[layer]), gallery.label_N.to(bench.device)),
            self.k,
            own_Q.to(bench.device) if self.gallery == "test" else None,
        )
        queries, *totals = all_reduce_sum(sums.cpu()).tolist()
        self._note_left_out(bench, len(query_Q), int(queries))
        mean_ap, *recalls = (total / queries for total in totals)
        names = [f"recall_at_{k}" for k in self.k]
        return {"mAP": mean_ap, **dict(zip(names, recalls))}

    def _note_left_out(self, bench: Bench, images: int, queries: int) -> None:
        if not queries:
            raise ConfigError(
                "evaluations.retrieval: no test image has another one of its class in the gallery"
            )
        if queries < images:
            bench.note(f"retrieval: {images - queries} queries have no relevant image: left out")


def score_sums(
    query: tuple[Tensor, Tensor],
    gallery: tuple[Tensor, Tensor],
    k: tuple[int, ...],
    own_Q: Tensor | None = None,
) -> Tensor:
    """[2 + K], float64: number of queries with a relevant image, sums of AP and of each recall@k.

    Args:
        query, gallery: features of unit length and class ids.
        own_Q: row of each query in the gallery, which it must not find.
    """
    sums = torch.zeros(2 + len(k), dtype=torch.float64, device=query[0].device)
    rows = max(1, COSINES // len(gallery[0]))
    for block in torch.arange(len(query[0]), device=sums.device).split(rows):
        cosine_BG = query[0][block] @ gallery[0].T
        if own_Q is not None:
            cosine_BG.scatter_(1, own_Q[block, None], -torch.inf)
        order_BG = cosine_BG.argsort(dim=1, descending=True, stable=True)
        relevant_BG = gallery[1][order_BG] == query[1][block, None]
        if own_Q is not None:
            relevant_BG = relevant_BG[:, :-1]  # its own place is the last
        sums += block_sums(relevant_BG, k)
    return sums


def block_sums(relevant_BG: Tensor, k: tuple[int, ...]) -> Tensor:
    """As `score_sums`, from relevance in the order of the ranks."""
    found_BG = relevant_BG.cumsum(1)
    rank_G = torch.arange(1, relevant_BG.shape[1] + 1, device=relevant_BG.device)
    relevant_B = relevant_BG.sum(1)
    ap_B = (found_BG / rank_G * relevant_BG).sum(1, dtype=torch.float64) / relevant_B.clamp(min=1)
    recalls = [relevant_BG[:, :first].any(1).sum() for first in k]
    return torch.stack([(relevant_B > 0).sum(), ap_B.sum(), *recalls]).double()
