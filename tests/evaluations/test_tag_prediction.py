"""Metrics of tags against naive ones. Legend: N images, V tags."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from training import small

from vissl_lite import ConfigError
from vissl_lite.data.batch import Tags
from vissl_lite.engine.bench import Bench
from vissl_lite.engine.build import build_model
from vissl_lite.engine.numerics import Numerics
from vissl_lite.evaluations import tag_prediction
from vissl_lite.evaluations.tag_prediction import TagPrediction, at_k, bands
from vissl_lite.model import LOGITS
from vissl_lite.parallel.mesh import make_mesh
from vissl_lite.parallel.wrap import shard
from vissl_lite.plugins import load_entries
from vissl_lite.sources.digits_tags import DigitsTags

TEST = {"name": "digits_tags", "n": 60, "split": "test", "seed": 3}


@pytest.mark.parametrize("seed", [0, 1])
def test_precision_and_recall_at_k_by_the_definition(seed):
    torch.manual_seed(seed)
    z_NV = torch.randn(7, 9)
    rows = [np.flatnonzero(torch.rand(9) < 0.3).tolist() or [4] for _ in range(7)]
    with_an_untagged_image = torch.cat([z_NV[:3], torch.randn(1, 9), z_NV[3:]])
    found = at_k(with_an_untagged_image, Tags.pack([*rows[:3], [], *rows[3:]]), (1, 3, 20))
    for k in (1, 3, 20):
        best = [set(z.argsort(descending=True)[:k].tolist()) for z in z_NV]
        hits = [len(b & set(row)) for b, row in zip(best, rows)]
        assert found[f"precision@{k}"] == pytest.approx(np.mean(hits) / k)
        recall = np.mean([h / len(row) for h, row in zip(hits, rows)])
        assert found[f"recall@{k}"] == pytest.approx(recall)


def test_bands_hold_their_shares_of_the_vocabulary():
    count_V = np.array([5, 100, 0, 7, 7, 50, 1, 2, 3, 4])
    assert bands(count_V, (0.1, 0.5)).tolist() == [1, 0, 2, 1, 1, 1, 2, 2, 2, 2]
    assert bands(count_V, (0.0, 1.0)).tolist() == [1] * 10


def bench(**given):
    head = given.pop("head", "linear")
    words = ["++data.source={name: digits_tags, n: 300}", f"++heads=[{head}]"]
    config = small(*words, "++labelled={size: 16, transforms: []}")
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    model = build_model(config, given.pop("tags", 55)).eval()
    fp32 = Numerics("fp32", "contiguous", "")
    return Bench(model, config.labelled, {}, device=cpu, numerics=fp32, config=config)


def test_average_precision_by_band_is_scikit_learns():
    this = bench()
    found = TagPrediction(test=TEST, head=0.2, middle=0.3).evaluate(this)
    source = DigitsTags(n=60, split="test", seed=3)
    z_NV = this.seen(source, this.labelled, [LOGITS], target="tags").features[LOGITS].numpy()
    has_NV = np.zeros((60, 55), int)
    for n in range(60):
        has_NV[n, source[n].tags] = 1
    judged = np.flatnonzero(has_NV.sum(0))
    ap = {v: average_precision_score(has_NV[:, v], z_NV[:, v].astype(float)) for v in judged}
    values, _ = DigitsTags(n=300).all_tags()
    order = np.argsort(-np.bincount(values, minlength=55), kind="stable")
    parts = {"": order, "_head": order[:11], "_middle": order[11:28], "_tail": order[28:]}
    for name, tags in parts.items():
        expected = np.mean([ap[v] for v in tags if v in ap])
        assert found[f"mAP{name}"] == pytest.approx(expected, abs=1e-9)
    assert found["untagged"] == pytest.approx(np.mean(has_NV.sum(1) == 0))


def _with_classes_on_two(rank, world):
    load_entries()
    this = bench(head="{name: linear, shard_classes: true}")
    shard(this.model, make_mesh("ddp", None, this.device))
    assert this.model.scorer.sharded
    return TagPrediction(test=TEST).evaluate(this)


def test_of_a_classifier_that_is_spread_over_processes(ranks):
    alone = TagPrediction(test=TEST).evaluate(bench())
    for found in ranks(2)(_with_classes_on_two):
        assert found == pytest.approx(alone, rel=1e-4)


def test_another_vocabulary_is_refused():
    with pytest.raises(ConfigError, match=r"has 55 tags, the model one of 12 tags"):
        TagPrediction(test=TEST).evaluate(bench(tags=12))


def test_another_training_than_the_models_is_refused():
    """As in an evaluation afterwards whose data.source is not that of the run."""
    this = bench()
    this.config.data.source = {"name": "digits"}
    with pytest.raises(ConfigError, match=r"data\.source, Digits.* has not the vocabulary of"):
        TagPrediction(test=TEST).check(this)


def test_more_scores_than_memory_are_refused():
    """60 images x 55 tags x 8 bytes are 26,400."""
    with patch.object(tag_prediction, "_memory", lambda: 26_400):
        TagPrediction(test=TEST).check(bench())
    message = "scores of 60 images and 55 tags take up .* a source of at most 59 images"
    with (
        patch.object(tag_prediction, "_memory", lambda: 26_399),
        pytest.raises(ConfigError, match=message),
    ):
        TagPrediction(test=TEST).check(bench())


def test_no_test_images_are_refused():
    with pytest.raises(ConfigError, match=r"tag_prediction\.test: missing; name a source"):
        TagPrediction().evaluate(bench())


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"k": (0,)}, "needs numbers from 1"), ({"head": 0.7}, "together at most 1")],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TagPrediction(**settings)
