import math

import numpy as np
import pytest
import torch
from evaluations.pixels import PixelBench, digits
from sklearn.neighbors import KNeighborsClassifier

from vissl_lite import EVALUATIONS, ConfigError
from vissl_lite.evaluations import knn
from vissl_lite.evaluations.knn import KNN, knn_predict, nearest


def naive_votes(query_MD, bank_ND, label_N, num_classes, k, temperature):
    """The definition, one pair after the other, in double precision."""
    votes = np.zeros((len(query_MD), num_classes))
    for m, query in enumerate(query_MD.double().tolist()):
        cosines = [
            math.fsum(a * b for a, b in zip(query, row)) / (math.hypot(*query) * math.hypot(*row))
            for row in bank_ND.double().tolist()
        ]
        for n in sorted(range(len(cosines)), key=lambda n: -cosines[n])[:k]:
            votes[m, label_N[n]] += math.exp(cosines[n] / temperature)
    return votes


def random_data(queries=30, bank=70, dim=6, classes=7):
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(queries, dim, generator=generator),
        torch.randn(bank, dim, generator=generator),
        torch.randint(classes, (bank,), generator=generator),
    )


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (5, 0.07), (20, 0.1), (70, 1.0)])
def test_predicts_as_the_definition(k, temperature):
    query, bank, label = random_data()
    expected = naive_votes(query, bank, label, 7, k, temperature).argmax(1)
    assert knn_predict(query, bank, label, 7, k, temperature).tolist() == expected.tolist()


@pytest.mark.parametrize(("rows", "bank_rows"), [(7, 1000), (1000, 11), (4, 3)])
def test_blocks_do_not_change_the_neighbours(monkeypatch, rows, bank_rows):
    query, bank, _ = random_data()
    whole = nearest(query, bank, 9)
    monkeypatch.setattr(knn, "QUERY_ROWS", rows)
    monkeypatch.setattr(knn, "BANK_ROWS", bank_rows)
    blocks = nearest(query, bank, 9)
    torch.testing.assert_close(blocks[0], whole[0], rtol=0, atol=1e-6)
    assert torch.equal(blocks[1], whole[1])


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (20, 0.07), (200, 0.1)])
def test_agrees_with_sklearn_on_real_digits(k, temperature):
    (bank, label), (query, truth) = digits("train"), digits("test")
    reference = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / temperature)
    )
    expected = reference.fit(bank.double(), label).predict(query.double())
    predicted = knn_predict(query, bank, label, 10, k, temperature).numpy()
    assert np.mean(predicted == expected) == 1.0
    assert np.mean(predicted == truth.numpy()) > 0.93


def test_small_temperatures_do_not_overflow():
    (bank, label), (query, _) = digits("train"), digits("test")
    nearest_wins = knn_predict(query, bank, label, 10, 1, 0.1)
    cold = knn_predict(query, bank, label, 10, 20, 1e-4)  # exp(cos / T) alone would be inf
    assert (cold == nearest_wins).float().mean() > 0.99


def test_metrics_of_every_setting():
    metrics = KNN(k=(20, 200), temperatures=(0.1, 0.07)).evaluate(PixelBench())
    names = ["top1_k20_T0.1", "top1_k20_T0.07", "top1_k200_T0.1", "top1_k200_T0.07"]
    assert list(metrics) == ["top1", "top5", *names]
    assert metrics["top1"] == metrics["top1_k20_T0.1"]
    (bank, label), (query, truth) = digits("train"), digits("test")
    for k, t in [(20, 0.1), (200, 0.07)]:
        right = (knn_predict(query, bank, label, 10, k, t) == truth).double().mean().item()
        assert metrics[f"top1_k{k}_T{t}"] == pytest.approx(right, abs=1e-12)


def test_top5_counts_only_classes_with_votes():
    bench = PixelBench()
    one = KNN(k=(1,)).evaluate(bench)
    assert one["top5"] == one["top1"] < 1
    (bank, label), (query, truth) = digits("train"), digits("test")
    votes = naive_votes(query[:40], bank, label, 10, 200, 0.1)
    order = np.argsort(-votes, axis=1, kind="stable")[:, :5]
    expected = np.mean(
        [t in row and v[t] > 0 for t, row, v in zip(truth[:40].tolist(), order, votes)]
    )
    assert KNN(k=(200,)).evaluate(PixelBench(test_images=40))["top5"] == pytest.approx(expected)


@pytest.mark.parametrize("images", [1, 7, 99])
def test_few_test_images(images):
    metrics = KNN(k=(20,)).evaluate(PixelBench(test_images=images))
    (bank, label), (query, truth) = digits("train"), digits("test")
    right = knn_predict(query[:images], bank, label, 10, 20, 0.1) == truth[:images]
    assert metrics["top1"] == pytest.approx(right.double().mean().item(), abs=1e-12)


def test_more_neighbours_than_images():
    bench = PixelBench(train_images=50)
    metrics = KNN(k=(50, 200)).evaluate(bench)
    assert metrics["top1_k200_T0.1"] == metrics["top1_k50_T0.1"]
    assert bench.notes == ["knn: k = 200, but there are 50 train images: all of them vote"]


def test_another_layer():
    bench = PixelBench()
    assert KNN(k=(20,), layer="noise").evaluate(bench)["top1"] < 0.3
    assert KNN(k=(20,), layer="pixels").evaluate(bench)["top1"] > 0.95


def evaluate_on_rank(rank, world, test_images):
    return KNN(k=(20, 200)).evaluate(PixelBench(test_images=test_images))


@pytest.mark.parametrize("images", [None, 2])
def test_the_same_on_several_processes(images, ranks):
    alone = evaluate_on_rank(0, 1, images)
    assert ranks(3)(evaluate_on_rank, images) == [alone] * 3


def test_builds_from_a_config():
    built = EVALUATIONS.build({"k": [5], "temperatures": [1]}, "evaluations.knn")
    assert (built.k, built.temperatures, built.layer) == ((5,), (1.0,), None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": (0,)}, r"evaluations\.knn\.k: \[0\]; needs whole numbers from 1"),
        ({"k": ()}, r"evaluations\.knn\.k: \[\]; needs whole numbers from 1"),
        ({"temperatures": (0.1, 0.0)}, r"temperatures: \[0\.1, 0\.0\]; needs numbers above 0"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(ConfigError, match=message):
        KNN(**settings)
