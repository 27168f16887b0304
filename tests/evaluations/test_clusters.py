import math
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from distributed import run_ranks
from engine.some_digits import CPU, FP32, SomeDigits, small_model
from evaluations.pixels import PixelBench, digits
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score
from sklearn.preprocessing import normalize

from vissl_lite import EVALUATIONS, ConfigError
from vissl_lite.config import Labelled
from vissl_lite.data.random import generator
from vissl_lite.engine.bench import Bench
from vissl_lite.evaluations.clusters import STREAM, Clusters, kmeans, nmi_and_purity
from vissl_lite.evaluations.logistic import Logistic


def naive(cluster, label):
    """NMI and purity by their definitions, from counts."""
    n, pairs = len(label), Counter(zip(cluster, label))
    of_cluster, of_label = Counter(cluster), Counter(label)
    information = sum(
        c / n * math.log(c * n / (of_cluster[a] * of_label[b])) for (a, b), c in pairs.items()
    )
    entropies = [
        -sum(c / n * math.log(c / n) for c in counts.values()) for counts in (of_cluster, of_label)
    ]
    purity = sum(max(c for (a, _), c in pairs.items() if a == own) for own in of_cluster) / n
    return 2 * information / sum(entropies), purity


def test_nmi_and_purity_are_their_definitions():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 7, 300)
    cluster = np.where(rng.random(300) < 0.5, label, rng.integers(3, 12, 300))
    assert nmi_and_purity(cluster, label) == pytest.approx(naive(cluster, label), abs=1e-12)
    assert nmi_and_purity(label + 1, label) == pytest.approx((1.0, 1.0))
    assert nmi_and_purity(np.zeros(300), label)[0] == 0


def test_a_start_ends_where_no_image_wants_to_move():
    x = digits("train")[0].numpy()
    found = kmeans(x, 10, seed=0, start=0, max_iter=300)
    distance_NK = ((x[:, None].astype(float) - found.cluster_centers_) ** 2).sum(2)
    assert (distance_NK.argmin(1) == found.labels_).all()
    means = np.stack([x[found.labels_ == k].mean(0) for k in range(10)])
    np.testing.assert_allclose(found.cluster_centers_, means, atol=1e-5)


def test_equals_sklearn_on_real_digits():
    """From the same starts: other starts end in other optima, half a point of NMI away."""
    (x, _), (test, truth) = digits("train"), digits("test")
    x, test, truth = normalize(x.double()), normalize(test.double()), truth.numpy()
    states = [int(generator(0, 0, start, 0, STREAM).integers(2**31)) for start in range(10)]
    fits = [KMeans(10, n_init=1, random_state=state).fit(x) for state in states]
    found = min(fits, key=lambda fit: fit.inertia_).predict(test)
    metrics = Clusters().evaluate(PixelBench())
    assert metrics["nmi"] == pytest.approx(normalized_mutual_info_score(truth, found), abs=1e-3)
    assert metrics["purity"] == pytest.approx(naive(found, truth)[1], abs=1e-3)
    assert metrics["nmi"] > 0.7
    assert metrics["purity"] > 0.75


def test_the_start_of_the_smallest_distances_counts():
    (x, _), (test, truth) = digits("train"), digits("test")
    x, test = x.numpy(), test.numpy()
    starts = [kmeans(x, 12, seed=0, start=s, max_iter=300) for s in range(4)]
    best = min(starts, key=lambda found: found.inertia_)
    expected = nmi_and_purity(best.predict(test), truth.numpy())
    metrics = Clusters(k=(12,), starts=4, unit_length=False).evaluate(PixelBench())
    assert (metrics["nmi_k12"], metrics["purity_k12"]) == expected
    assert len({found.inertia_ for found in starts}) > 1


def test_metrics_of_every_k():
    metrics = Clusters(k=(5, 40), starts=1).evaluate(PixelBench())
    assert list(metrics) == ["nmi", "purity", "nmi_k5", "purity_k5", "nmi_k40", "purity_k40"]
    assert (metrics["nmi"], metrics["purity"]) == (metrics["nmi_k5"], metrics["purity_k5"])
    assert 0 < metrics["purity"] <= 0.5 + 0.1 < metrics["purity_k40"] <= 1  # five of ten classes


def test_features_that_say_nothing():
    metrics = Clusters(layer="noise", starts=1).evaluate(PixelBench())
    assert metrics["nmi"] < 0.15


class CollapsedBench(PixelBench):
    def features(self, split, layers):
        found = super().features(split, layers)
        found.features = {layer: torch.ones_like(x) for layer, x in found.features.items()}
        return found


def test_a_collapsed_model_has_no_information():
    metrics = Clusters(starts=2).evaluate(CollapsedBench())
    assert metrics["nmi"] == 0
    assert metrics["purity"] == pytest.approx(0.1, abs=0.01)


def test_features_that_are_no_numbers_are_refused():
    model = small_model()
    torch.nn.init.constant_(next(model.trunk.parameters()), torch.nan)
    sources = {"train": SomeDigits(20), "test": SomeDigits(9)}
    labelled = Labelled(size=8, transforms=[])
    bench = Bench(model, labelled, sources, device=CPU, numerics=FP32)
    with pytest.raises(ConfigError, match=r"layer res5 are nan or inf for 20 of 20 images; take"):
        Clusters().evaluate(bench)
    with pytest.raises(ConfigError, match=r"layer res5 are nan or inf for 20 of 20 images; take"):
        Logistic().evaluate(bench)


def test_the_assignments_are_left_behind(tmp_path):
    labelled = Labelled(size=8, transforms=[], batch_size=64)
    sources = {"train": SomeDigits(40, broken=(1,), unlabelled=(3, 4)), "test": SomeDigits(9)}
    bench = Bench(small_model(), labelled, sources, device=CPU, numerics=FP32, folder=tmp_path)
    metrics = Clusters(k=(4, 2), starts=2).evaluate(bench)
    folder = tmp_path / "evaluations" / "clusters"
    assert sorted(file.name for file in folder.iterdir()) == ["k2.parquet", "k4.parquet"]
    rows = pq.read_table(folder / "k4.parquet").to_pylist()
    train, test = rows[:37], rows[37:]
    assert [row["index"] for row in train] == [i for i in range(40) if i not in (1, 3, 4)]
    assert [row["index"] for row in test] == list(range(9))
    assert {(row["split"], row["name"]) for row in train} == {
        ("train", f"n{row['index']}") for row in train
    }
    assert {row["split"] for row in test} == {"test"}
    cluster = np.array([row["cluster"] for row in rows])
    label = np.array([row["label"] for row in rows])
    assert nmi_and_purity(cluster[37:], label[37:]) == (metrics["nmi_k4"], metrics["purity_k4"])
    assert label[37:].tolist() == [sources["test"][i].label for i in range(9)]
    check_distances(rows, cluster, bench)


def check_distances(rows, cluster, bench):
    """Centroids are the means of the train images of their cluster, and the nearest ones."""
    x = np.concatenate([bench.features(s).features["res5"] for s in ("train", "test")])
    x = normalize(x.astype(float))
    centroids = np.stack([x[:37][cluster[:37] == k].mean(0) for k in range(4)])
    distance_NK = np.linalg.norm(x[:, None] - centroids, axis=2)
    np.testing.assert_array_equal(cluster, distance_NK.argmin(1))
    np.testing.assert_allclose([row["distance"] for row in rows], distance_NK.min(1), atol=1e-5)


def evaluate_on_rank(rank, world, seed=0):
    bench = PixelBench(train_images=300, test_images=100)
    return Clusters(k=(10, 20), starts=3, seed=seed).evaluate(bench)


def test_the_same_on_several_processes():
    assert run_ranks(evaluate_on_rank, 2) == [evaluate_on_rank(0, 1)] * 2


def test_deterministic_by_seed():
    first, again, other = (evaluate_on_rank(0, 1, seed) for seed in (0, 0, 1))
    assert first == again != other


def test_builds_from_a_config():
    built = EVALUATIONS.build({"k": [5], "starts": 2}, "evaluations.clusters")
    assert (built.k, built.starts, built.layer) == ((5,), 2, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": (0,)}, r"evaluations\.clusters\.k: \[0\]; needs whole numbers from 1"),
        ({"k": ()}, r"evaluations\.clusters\.k: \[\]; needs whole numbers from 1"),
        ({"starts": 0}, r"evaluations\.clusters: starts and max_iter need to be 1 or more"),
        ({}, r"evaluations\.clusters\.k: 10 clusters of 9 train images; give a smaller k"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(ConfigError, match=message):
        Clusters(**settings).evaluate(PixelBench(train_images=9))
