import numpy as np
import pytest
import torch
from engine.some_digits import CPU, FP32, SomeDigits, small_model
from evaluations.pixels import PixelBench, digits
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import normalize

from vissl_lite import EVALUATIONS, ConfigError
from vissl_lite.config import Labelled
from vissl_lite.engine.bench import Bench
from vissl_lite.evaluations import _descriptors, retrieval
from vissl_lite.evaluations._descriptors import resized, whitening
from vissl_lite.evaluations.retrieval import Retrieval, block_sums
from vissl_lite.sources.digits import Digits


def sklearn_scores(query, truth, gallery, label, k, itself=False):
    """mAP and recall@k in double precision, one query after the other."""
    precisions, hits = [], []
    for q, own in enumerate(truth):
        others = np.arange(len(label)) != q if itself else np.full(len(label), True)
        cosine, relevant = gallery[others] @ query[q], label[others] == own
        if relevant.any():
            precisions.append(average_precision_score(relevant, cosine))
            hits.append(relevant[np.argsort(-cosine)[:k]].any())
    return np.mean(precisions), np.mean(hits)


def numbers(part):
    x, label = digits(part)
    return normalize(x.double().numpy()), label.numpy()


def test_test_images_find_train_images_as_in_sklearn():
    bench = PixelBench()
    metrics = Retrieval(k=(1, 10)).evaluate(bench)
    for k in (1, 10):
        mean_ap, recall = sklearn_scores(*numbers("test"), *numbers("train"), k)
        assert metrics["mAP"] == pytest.approx(mean_ap, abs=1e-4)
        assert metrics[f"recall_at_{k}"] == pytest.approx(recall, abs=1e-4)
    assert list(metrics) == ["mAP", "recall_at_1", "recall_at_10"]
    assert 0.6 < mean_ap < 0.8
    assert bench.notes == []


@pytest.mark.parametrize("cosines", [1 << 23, 1000])
def test_test_images_find_one_another_as_in_sklearn(cosines, monkeypatch):
    monkeypatch.setattr(retrieval, "COSINES", cosines)
    metrics = Retrieval(gallery="test", k=(1,)).evaluate(PixelBench())
    mean_ap, recall = sklearn_scores(*numbers("test"), *numbers("test"), 1, itself=True)
    assert metrics["mAP"] == pytest.approx(mean_ap, abs=1e-4)
    assert metrics["recall_at_1"] == pytest.approx(recall, abs=1e-4)
    assert recall < 1


@pytest.mark.parametrize("components", [8, 30])
def test_whitening_equals_sklearn(components):
    (x, label), (test, truth) = numbers("train"), numbers("test")
    pca = PCA(components, whiten=True, svd_solver="full").fit(x)
    white = normalize(pca.transform(test)), truth, normalize(pca.transform(x)), label
    metrics = Retrieval(whiten=components, k=(1,)).evaluate(PixelBench())
    mean_ap, recall = sklearn_scores(*white, 1)
    assert metrics["mAP"] == pytest.approx(mean_ap, abs=1e-4)
    assert metrics["recall_at_1"] == pytest.approx(recall, abs=1e-4)


def test_whitened_features_have_covariance_one(monkeypatch):
    monkeypatch.setattr(_descriptors, "BLOCK_ROWS", 100)
    x, _ = digits("train")
    mean_D, map_DP = whitening(x, 20)
    z_NP = (torch.nn.functional.normalize(x.double(), dim=1) - mean_D) @ map_DP
    torch.testing.assert_close(z_NP.T @ z_NP / len(x), torch.eye(20).double(), rtol=0, atol=1e-4)
    assert z_NP.mean(0).abs().max() < 1e-9


def small_bench(sources=None, **labelled):
    labelled = Labelled(**{"size": 16, "transforms": ["resize", "center_crop"], **labelled})
    sources = sources or {"train": Digits("test"), "test": SomeDigits(40, unlabelled=(3,))}
    return Bench(small_model(), labelled, sources, device=CPU, numerics=FP32)


@pytest.mark.parametrize("scales", [(1.0, 0.75, 0.5), (0.5,)])
def test_several_scales_are_averaged(scales):
    found = {"train": 0, "test": 0}
    for scale in scales:
        bench = small_bench(size=int(16 * scale))
        for split in found:
            x = bench.features(split).features["res5"].double().numpy()
            found[split] = found[split] + normalize(x)
    label = {split: bench.features(split).label_N.numpy() for split in found}
    sides = [(normalize(found[split]), label[split]) for split in ("test", "train")]
    metrics = Retrieval(k=(1,), scales=scales).evaluate(small_bench())
    mean_ap, recall = sklearn_scores(*sides[0], *sides[1], 1)
    assert metrics["mAP"] == pytest.approx(mean_ap, abs=1e-4)
    assert metrics["recall_at_1"] == pytest.approx(recall, abs=1e-4)


NONE = {"train": (2, 3, 40, 79), "test": (0, 7, 39)}  # images without a label


@pytest.mark.parametrize(("gallery", "scale"), [("train", 1.0), ("test", 0.5)])
def test_images_without_a_label_are_distractors(gallery, scale):
    whole = {"train": SomeDigits(80), "test": SomeDigits(40)}
    known = small_bench(whole, size=int(16 * scale))
    x, label, part = {}, {}, {}
    for split, source in whole.items():
        found = known.features(split)
        x[split] = normalize(found.features["res5"].double().numpy())
        label[split] = found.label_N.numpy().copy()
        label[split][list(NONE[split])] = -1
        part[split] = SomeDigits(len(source), unlabelled=NONE[split])
    truth = np.where(label["test"] < 0, -2, label["test"])  # of which there is no image
    sides = x["test"], truth, x[gallery], label[gallery]
    mean_ap, recall = sklearn_scores(*sides, 1, itself=gallery == "test")
    metrics = Retrieval(gallery, k=(1,), scales=(scale,)).evaluate(small_bench(part))
    assert metrics["mAP"] == pytest.approx(mean_ap, abs=1e-4)
    assert metrics["recall_at_1"] == pytest.approx(recall, abs=1e-4)


def test_a_resize_of_its_own_size_is_scaled_too():
    transforms = [{"name": "resize", "short_side": 256}, "center_crop"]
    half = resized(Labelled(size=224, transforms=transforms), 0.5)
    assert half.size == 112
    assert half.transforms == [{"name": "resize", "short_side": 128}, "center_crop"]


def test_directions_without_variance_do_no_harm():
    every = Retrieval(whiten=64, k=(1,)).evaluate(PixelBench())  # some pixels are always 0
    assert every["recall_at_1"] > 0.9


def test_average_precision_by_hand():
    relevant = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.bool)
    queries, precision, at_1, at_2 = block_sums(relevant, (1, 2)).tolist()
    assert queries == 2
    assert precision == pytest.approx((1 + 2 / 3) / 2 + 1 / 2)
    assert (at_1, at_2) == (1, 2)


def test_equal_cosines_are_ranked_in_order_of_the_source():
    class Copies(PixelBench):
        def features(self, split, layers):
            found = super().features(split, layers)
            found.features = {layer: torch.ones_like(x) for layer, x in found.features.items()}
            return found

    metrics = Retrieval(k=(1,)).evaluate(Copies(test_images=50))
    first = digits("train")[1][0]
    share = (digits("test")[1][:50] == first).double().mean().item()
    assert metrics["recall_at_1"] == pytest.approx(share)


def test_queries_without_a_relevant_image_are_left_out():
    bench = PixelBench(test_images=12)
    metrics = Retrieval(gallery="test", k=(1,)).evaluate(bench)
    x, label = numbers("test")
    alone = int((label[:12, None] == label[:12]).sum(1).__eq__(1).sum())
    expected = sklearn_scores(x[:12], label[:12], x[:12], label[:12], 1, itself=True)
    assert (metrics["mAP"], metrics["recall_at_1"]) == pytest.approx(expected, abs=1e-5)
    assert bench.notes == [f"retrieval: {alone} queries have no relevant image: left out"]


def evaluate_on_rank(rank, world, images, gallery):
    bench = PixelBench(train_images=200, test_images=images)
    return Retrieval(gallery=gallery, whiten=10).evaluate(bench)


@pytest.mark.parametrize(("images", "gallery"), [(101, "test"), (2, "train")])
def test_the_same_on_several_processes(images, gallery, ranks):
    alone = evaluate_on_rank(0, 1, images, gallery)
    for metrics in ranks(3)(evaluate_on_rank, images, gallery):
        assert metrics == pytest.approx(alone, abs=1e-6)


def test_builds_from_a_config():
    built = EVALUATIONS.build({"k": [5], "gallery": "test"}, "evaluations.retrieval")
    assert (built.k, built.gallery, built.whiten) == ((5,), "test", None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": (0,)}, r"evaluations\.retrieval\.k: \[0\]; needs whole numbers from 1"),
        ({"scales": (0.0,)}, r"evaluations\.retrieval\.scales: \[0\.0\]; needs numbers above 0"),
        ({"whiten": 0}, r"evaluations\.retrieval\.whiten: 0; needs 1 or more, or null"),
        ({"whiten": 65}, r"whiten: 65 components of 64 features of 99 train images; give fewer"),
        (
            {"gallery": "test"},
            r"evaluations\.retrieval: no test image has another one of its class",
        ),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(ConfigError, match=message):
        Retrieval(**settings).evaluate(PixelBench(train_images=99, test_images=1))
