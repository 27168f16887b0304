"""Shape suffixes: N tagged test images, V tags, T pairs (image, one of its tags)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
import torch
from torch import Tensor

from vissl_lite import EVALUATIONS, SOURCES, ConfigError
from vissl_lite.data.balance import tag_counts
from vissl_lite.engine.order import classes_of
from vissl_lite.evaluations._ranks import share_out
from vissl_lite.evaluations.multilabel import having
from vissl_lite.model import LOGITS
from vissl_lite.parallel.collectives import world_size

if TYPE_CHECKING:
    from vissl_lite.data.batch import Tags
    from vissl_lite.engine.bench import Bench

BANDS = ("head", "middle", "tail")


@EVALUATIONS.register("tag_prediction")
class TagPrediction:
    """How well the model's own classifier predicts the tags of images, by frequency of the tag.

    Per image, over the images with a tag: `precision@k`, the share of the k best scores that are
    tags of the image, and `recall@k`, the share of its tags that are among them. Per tag, over the
    tags that a test image has: average precision (scikit-learn's, the area under the steps), its
    mean `mAP`, and in bands of training frequency `mAP_head`, `mAP_middle`, `mAP_tail`. `untagged`
    is the share of test images without a tag. All in [0, 1]. Processes share out the tags. Scores
    of all test images and tags are in the memory of each process: 4 bytes each, and 8 for a moment
    where images cannot be read.

    Args:
        test: source with the training's classes as tags; default: labelled.test.
        k: of precision and recall.
        head, middle: shares of the vocabulary, most frequent tags first; the rest is the tail.

    Raises:
        ConfigError: no classifier, images without tags, another vocabulary, a training source whose
            tags are not known before its images are opened, more scores than the memory of this
            machine holds, or a k, or shares, out of range.
    """

    brings_images = True

    def __init__(
        self,
        test: Annotated[Any, SOURCES] = None,
        k: tuple[int, ...] = (1, 5),
        head: float = 0.1,
        middle: float = 0.4,
    ):
        if not k or min(k) < 1:
            raise ConfigError(f"evaluations.tag_prediction.k: {list(k)}; needs numbers from 1")
        if min(head, middle) < 0 or head + middle > 1:
            raise ConfigError(
                f"evaluations.tag_prediction: head {head:g} and middle {middle:g} are shares of the"
                " vocabulary; together at most 1"
            )
        self.test, self.k, self.ends = test, k, (head, head + middle)

    def check(self, bench: Bench) -> None:
        self._source(bench)

    def evaluate(self, bench: Bench) -> dict[str, float]:
        source = self._source(bench)
        found = bench.seen(source, bench.labelled, [LOGITS], target="tags")
        tags, z_NV = cast("Tags", found.tags), found.features[LOGITS]
        if not len(tags.values_T):
            raise ConfigError("evaluations.tag_prediction.test: no image has a tag")
        untagged = (tags.counts_B() == 0).double().mean().item()
        ranking = at_k(z_NV, tags, self.k)
        return {**self._by_band(bench, z_NV, tags), **ranking, "untagged": untagged}

    def _source(self, bench: Bench) -> Any:
        given = self.test or (bench.config and bench.config.labelled.test)
        if given is None:
            raise ConfigError("evaluations.tag_prediction.test: missing; name a source with tags")
        source = SOURCES.build(given, "evaluations.tag_prediction.test")
        scorer = bench.model.scorer
        if scorer is None or source.num_classes != scorer.out_dim:
            trained = "no classifier" if scorer is None else f"one of {scorer.out_dim:,} tags"
            raise ConfigError(
                f"evaluations.tag_prediction: {source!r} has {source.num_classes} tags, the model"
                f" {trained}; evaluate images with the training's vocabulary"
            )
        _check_trained_on(self._trained_on(bench), source)
        _check_memory(len(source), scorer.out_dim)  # pyright: ignore
        return source

    def _by_band(self, bench: Bench, z_NV: Tensor, tags: Tags) -> dict[str, float]:
        judged = tags.values_T.unique().tolist()

        def row(v: int) -> list[float]:
            from sklearn.metrics import average_precision_score

            has_N, score_N = having(tags, judged[v]), z_NV[:, judged[v]].double()
            return [float(average_precision_score(has_N, score_N.numpy()))]

        ap_V = torch.full((z_NV.shape[1],), torch.nan, dtype=torch.float64)
        ap_V[judged] = share_out(len(judged), 1, row)[:, 0]
        band_V = torch.from_numpy(bands(self._frequency(bench, z_NV.shape[1]), self.ends))
        means = {name: ap_V[band_V == b].nanmean().item() for b, name in enumerate(BANDS)}
        shown = {f"mAP_{name}": ap for name, ap in means.items() if ap == ap}
        return {"mAP": ap_V.nanmean().item(), **shown}

    def _frequency(self, bench: Bench, num_tags: int) -> np.ndarray:
        assert bench.config is not None
        name = bench.config.data.source["name"]
        values, _ = classes_of(self._trained_on(bench), name)
        return tag_counts(values, num_tags)

    def _trained_on(self, bench: Bench) -> Any:
        assert bench.config is not None
        return SOURCES.build(bench.config.data.source, "data.source")


def _check_trained_on(trained: Any, source: Any) -> None:
    """Bands of frequency are those of the training, so it has to have the same tags."""
    names = trained.classes, source.classes
    if trained.num_classes != source.num_classes or (None not in names and names[0] != names[1]):
        raise ConfigError(
            f"evaluations.tag_prediction: data.source, {trained!r}, has not the vocabulary of"
            f" {source!r}; set it to the images that the model was trained on"
        )


def _check_memory(images: int, tags: int) -> None:
    """Scores of everything have to fit beside those of the other processes of this machine."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
    needed, there = 8 * images * tags, _memory() // processes
    if needed > there:
        raise ConfigError(
            f"evaluations.tag_prediction.test: scores of {images:,} images and {tags:,} tags take"
            f" up to {needed / 1e9:,.0f} GB in each process, which has {there / 1e9:,.0f} GB; name"
            f" a source of at most {there // (8 * tags):,} images"
        )


def _memory() -> int:
    """Bytes of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def bands(count_V: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """[V]: 0, 1, 2 for head, middle, tail; of equally frequent tags the first come first."""
    place_V = np.empty(len(count_V), np.int64)
    place_V[np.argsort(-count_V, kind="stable")] = np.arange(len(count_V))
    edges = [round(end * len(count_V)) for end in ends]
    return np.searchsorted(edges, place_V, side="right")


def at_k(z_NV: Tensor, tags: Tags, ks: tuple[int, ...]) -> dict[str, float]:
    """Mean precision and recall at every k over the images with a tag."""
    num_tags = z_NV.shape[1]
    best_NK = z_NV.topk(min(max(ks), num_tags), dim=1).indices
    row_N1 = torch.arange(len(z_NV))[:, None]
    own_T = tags.rows_T() * num_tags + tags.values_T
    hit_NK = torch.isin(row_N1 * num_tags + best_NK, own_T).double()
    count_N = tags.counts_B()
    has_N, numbers = count_N > 0, {}
    for k in ks:
        hits_N = hit_NK[has_N, :k].sum(1)
        numbers[f"precision@{k}"] = (hits_N / k).mean().item()
        numbers[f"recall@{k}"] = (hits_N / count_N[has_N]).mean().item()
    return numbers
