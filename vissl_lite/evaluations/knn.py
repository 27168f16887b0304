"""Shape suffixes: M test images, N train images, B train images of a block, D features, C classes,
k neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from vissl_lite import EVALUATIONS, ConfigError
from vissl_lite.evaluations._accuracy import place
from vissl_lite.parallel.collectives import all_reduce_sum, rank, world_size

if TYPE_CHECKING:
    from vissl_lite.engine.bench import Bench

QUERY_ROWS, BANK_ROWS = 1024, 32_768  # of one block of cosines: 128 MiB


@EVALUATIONS.register("knn")
class KNN:
    """Weighted k-nearest-neighbour classifier on frozen features (Wu et al. 2018).

    The protocol of Wu et al. (arXiv 1805.01978, section 3.4), as in DINO, VISSL and lightly.
    Metrics, in [0, 1]: `top1_k20_T0.1` for every k and temperature, `top1` and `top5` for the first
    of each. A class without any vote is not among the top 5. Where k exceeds the number of train
    images, all of them vote, and the metric keeps its name.

    Args:
        k: numbers of neighbours; 20 is DINO's choice, 200 that of Wu et al., VISSL and lightly.
        temperatures: of the votes; 0.1 in VISSL and lightly, 0.07 in Wu et al. and DINO.
        layer: trunk layer or "embedding"; default: the layer that feeds the heads.

    Raises:
        ConfigError: a k below 1, or a temperature that is not positive.
    """

    def __init__(
        self,
        k: tuple[int, ...] = (20, 200),
        temperatures: tuple[float, ...] = (0.1,),
        layer: str | None = None,
    ):
        if not k or min(k) < 1:
            raise ConfigError(f"evaluations.knn.k: {list(k)}; needs whole numbers from 1")
        if not temperatures or min(temperatures) <= 0:
            raise ConfigError(
                f"evaluations.knn.temperatures: {list(temperatures)}; needs numbers above 0"
            )
        self.k, self.temperatures, self.layer = k, temperatures, layer

    def check(self, bench: Bench) -> None:
        bench.check_layers(self.layer)

    def evaluate(self, bench: Bench) -> dict[str, float]:
        layers = [self.layer or bench.model.layer]
        train, test = bench.features("train", layers), bench.features("test", layers)
        self._note_large_k(bench, len(train.label_N))
        own = slice(rank(), None, world_size())
        hits_S2 = self._hits(
            test.features[layers[0]][own].to(bench.device),
            test.label_N[own].to(bench.device),
            train.features[layers[0]],
            train.label_N.to(bench.device),
            bench.num_classes,
        )
        top_S2 = (all_reduce_sum(hits_S2) / len(test.label_N)).tolist()
        first, *_ = top_S2
        names = [f"top1_k{k}_T{t:g}" for k in self.k for t in self.temperatures]
        return {"top1": first[0], "top5": first[1], **dict(zip(names, (top for top, _ in top_S2)))}

    def _hits(
        self, query_MD: Tensor, truth_M: Tensor, bank_ND: Tensor, label_N: Tensor, num_classes: int
    ) -> Tensor:
        """[settings, 2], float64: test images of this process whose class is first, among five."""
        cosine_Mk, index_Mk = nearest(query_MD, bank_ND, max(self.k))
        label_Mk, hits = label_N[index_Mk], []
        for k in self.k:
            for t in self.temperatures:
                votes_MC = vote(cosine_Mk[:, :k], label_Mk[:, :k], num_classes, t)
                place_M = place(votes_MC, truth_M)
                voted_M = votes_MC.gather(1, truth_M[:, None])[:, 0] > 0
                hits.append([((place_M < top) & voted_M).sum().item() for top in (1, 5)])
        return torch.tensor(hits, dtype=torch.float64)

    def _note_large_k(self, bench: Bench, images: int) -> None:
        for k in self.k:
            if k > images:
                bench.note(f"knn: k = {k}, but there are {images} train images: all of them vote")


def knn_predict(
    query_MD: Tensor, bank_ND: Tensor, label_N: Tensor, num_classes: int, k: int, temperature: float
) -> Tensor:
    """Class ids [M] by weighted vote of the k nearest rows of the bank, on the query's device.

        s_n = cos(query, bank_n)
        class = argmax over c of the sum of exp(s_n / T), n among the k largest s_n and of class c

    Of classes with equal votes the smaller id wins.
    """
    cosine_Mk, index_Mk = nearest(query_MD, bank_ND, k)
    label_Mk = label_N.to(query_MD.device)[index_Mk]
    return vote(cosine_Mk, label_Mk, num_classes, temperature).argmax(1)


def nearest(query_MD: Tensor, bank_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosines [M, k] and indices [M, k] of the bank's rows nearest to each query, nearest first.

    All N where k is larger. The bank may be on the CPU and the queries on a GPU: its rows travel
    once, and no more than 1024 x 32768 cosines exist at a time.
    """
    queries = F.normalize(query_MD, dim=1).split(QUERY_ROWS)
    best: list[tuple[Tensor, Tensor] | None] = [None] * len(queries)
    for start in range(0, len(bank_ND), BANK_ROWS):
        block_BD = F.normalize(bank_ND[start : start + BANK_ROWS].to(query_MD.device), dim=1)
        best = [_merge(found, q @ block_BD.T, start, k) for found, q in zip(best, queries)]
    cosines, indices = zip(*(found for found in best if found is not None))
    return torch.cat(cosines), torch.cat(indices)


def _merge(
    found: tuple[Tensor, Tensor] | None, cosine_MB: Tensor, start: int, k: int
) -> tuple[Tensor, Tensor]:
    """The k best of those found so far and of the block of the bank that begins at `start`."""
    cosine, index = cosine_MB.topk(min(k, cosine_MB.shape[1]))
    index = index + start
    if found is not None:
        cosine, index = torch.cat([found[0], cosine], 1), torch.cat([found[1], index], 1)
        cosine, chosen = cosine.topk(min(k, cosine.shape[1]))
        index = index.gather(1, chosen)
    return cosine, index


def vote(cosine_Mk: Tensor, label_Mk: Tensor, num_classes: int, temperature: float) -> Tensor:
    """Votes [M, C]: exp(cosine / T) summed per class.

    Each row is divided by its largest weight: small temperatures overflow nothing, ranks stay.
    """
    weight_Mk = ((cosine_Mk - cosine_Mk[:, :1]) / temperature).exp()
    votes_MC = cosine_Mk.new_zeros(len(cosine_Mk), num_classes)
    return votes_MC.scatter_add_(1, label_Mk, weight_Mk)
