from dataclasses import replace

import numpy as np
import pytest
import torch
from distributed import run_ranks
from engine.some_digits import CPU, FP32, SomeDigits, small_model
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import normalize

from vissl_lite import EVALUATIONS, ConfigError
from vissl_lite.config import Labelled
from vissl_lite.engine.bench import Bench
from vissl_lite.evaluations import copy_detection
from vissl_lite.evaluations.copy_detection import EDITS, CopyDetection, scores
from vissl_lite.sources.digits import Digits

EDIT = [{"name": "random_resized_crop", "scale": [0.6, 0.9]}]


def small_bench(sources=None):
    labelled = Labelled(size=8, transforms=[])
    sources = sources or {"train": Digits("train"), "test": SomeDigits(61, unlabelled=(7,))}
    return Bench(small_model(), labelled, sources, device=CPU, numerics=FP32)


def sklearn_scores(query, gallery):
    """Query q is a copy of image q of the gallery; double precision."""
    cosine = query @ gallery.T
    copy = np.eye(*cosine.shape, dtype=bool)
    each = [average_precision_score(copy[q], cosine[q]) for q in range(len(query))]
    recall = (cosine.argmax(1) == np.arange(len(query))).mean()
    return average_precision_score(copy.ravel(), cosine.ravel()), np.mean(each), recall


def features(bench):
    edited = replace(bench.labelled, transforms=EDIT)
    found = bench.features("train"), bench.features("test"), bench.seen("test", edited)
    return [normalize(f.features["res5"].double().numpy()) for f in found]


@pytest.mark.parametrize("cosines", [1 << 23, 20_000])
@pytest.mark.parametrize("distractors", [True, False])
def test_as_in_sklearn(cosines, distractors, monkeypatch):
    monkeypatch.setattr(copy_detection, "COSINES", cosines)
    metrics = CopyDetection(EDIT, distractors=distractors).evaluate(small_bench())
    train, original, query = features(small_bench())
    gallery = np.concatenate([original, train]) if distractors else original
    assert (len(query), len(gallery)) == (60, 1498 if distractors else 60)
    expected = sklearn_scores(query, gallery)
    assert list(metrics) == ["muAP", "mAP", "recall_at_1"]
    assert list(metrics.values()) == pytest.approx(expected, abs=2e-3)
    assert expected[0] < expected[1] < 1


def test_distractors_need_no_label():
    sources = {"train": SomeDigits(90, unlabelled=range(1, 90, 2)), "test": SomeDigits(20)}
    bench, whole = small_bench(sources), small_bench({**sources, "train": SomeDigits(90)})
    assert CopyDetection(EDIT).evaluate(bench) == CopyDetection(EDIT).evaluate(whole)


def test_whitened_as_in_sklearn():
    train, original, query = features(small_bench())
    pca = PCA(12, whiten=True, svd_solver="full").fit(train)
    query, original, train = (normalize(pca.transform(x)) for x in (query, original, train))
    metrics = CopyDetection(EDIT, whiten=12).evaluate(small_bench())
    expected = sklearn_scores(query, np.concatenate([original, train]))
    assert list(metrics.values()) == pytest.approx(expected, abs=2e-3)


def test_equal_cosines_share_a_threshold():
    """Rounded to tenths, most cosines are equal to others."""
    values = torch.Generator().manual_seed(0)
    x = torch.randint(-2, 3, (50, 4), generator=values).double()
    query, gallery = x[:20] + torch.randint(0, 2, (20, 4), generator=values), x
    found = scores(query, gallery, torch.arange(20))
    micro, _, _ = sklearn_scores(query.numpy(), gallery.numpy())
    assert found["muAP"] == pytest.approx(micro, abs=1e-12)


def test_one_threshold_for_all_queries_by_hand():
    """Cosines of the true pairs 0.8 and 0.6; a wrong pair at 0.7 spoils the second threshold."""
    gallery = torch.eye(3)
    query = torch.tensor([[0.8, 0.0, 0.1], [0.7, 0.6, 0.0]])
    found = scores(query, gallery, torch.arange(2))
    assert found["muAP"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["mAP"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["recall_at_1"] == 0.5


def test_untouched_copies_are_found():
    metrics = CopyDetection([]).evaluate(small_bench())
    assert metrics["recall_at_1"] > 0.95
    assert CopyDetection([], distractors=False).evaluate(small_bench()) == {
        "muAP": 1.0,
        "mAP": 1.0,
        "recall_at_1": 1.0,
    }


def evaluate_on_rank(rank, world):
    return CopyDetection(EDIT, whiten=10).evaluate(small_bench())


def test_the_same_on_several_processes():
    alone = evaluate_on_rank(0, 1)
    for metrics in run_ranks(evaluate_on_rank, 2):
        assert metrics == pytest.approx(alone, abs=1e-3)


def test_builds_from_a_config():
    built = EVALUATIONS.build({"edits": ["solarize"]}, "evaluations.copy_detection")
    assert built.edits == ["solarize"]
    assert EVALUATIONS.build({}, "evaluations.copy_detection").edits == EDITS


def test_the_default_edits_are_harder():
    metrics = CopyDetection(distractors=False).evaluate(small_bench())
    assert 0 < metrics["recall_at_1"] < 0.9


def test_edits_of_another_size_are_told_before_anything_is_computed():
    bench = small_bench()
    bench.features, bench.labelled = None, replace(bench.labelled, size=12)
    with pytest.raises(ConfigError, match=r"copy_detection\.edits\[0\]: its transforms give 8x8"):
        CopyDetection(edits=["gaussian_blur"]).evaluate(bench)


def test_mistakes():
    with pytest.raises(ConfigError, match=r"evaluations\.copy_detection\.whiten: 0; needs 1"):
        CopyDetection(whiten=0)
    with pytest.raises(ConfigError, match=r"copy_detection\.whiten: 65 components of 64 features"):
        CopyDetection(EDIT, whiten=65).evaluate(small_bench())
    with pytest.raises(ConfigError, match=r"copy_detection\.edits\[0\]: unknown transform 'flip'"):
        EVALUATIONS.build({"edits": ["flip"]}, "evaluations.copy_detection")
