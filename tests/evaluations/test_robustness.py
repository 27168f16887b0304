import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from distributed import run_ranks
from engine.some_digits import CPU, FP32, SomeDigits, small_model
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler, normalize

from vissl_lite import EVALUATIONS, HEADS, TRANSFORMS, ConfigError
from vissl_lite.config import Labelled
from vissl_lite.engine.bench import Bench
from vissl_lite.evaluations import robustness
from vissl_lite.evaluations.robustness import Robustness, all_kinds
from vissl_lite.model import SSLModel
from vissl_lite.plugins import load_entries
from vissl_lite.sources.digits import Digits
from vissl_lite.transforms._corruptions import KINDS

LABELLED = Labelled(size=8, transforms=[])
TWO = ("gaussian_noise", "contrast")


def small_bench(folder=None, test=None, labelled=LABELLED, model=None):
    sources = {"train": Digits("train"), "test": test or SomeDigits(120, unlabelled=(3,))}
    model = small_model() if model is None else model
    return Bench(model, labelled, sources, device=CPU, numerics=FP32, folder=folder)


def features(split="test", kind=None, severity=None):
    corruption = [{"name": "corruption", "kind": kind, "severity": severity}] if kind else []
    bench = small_bench(labelled=replace(LABELLED, transforms=LABELLED.transforms + corruption))
    found = bench.features(split)
    return found.features["res5"].double().numpy(), found.label_N.numpy()


@pytest.fixture(scope="module")
def logistic():
    x, label = features("train")
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=0.1, max_iter=1000).fit(scaler.transform(x), label)
    return lambda x, label: model.score(scaler.transform(x), label)


def test_a_classifier_of_clean_images_is_judged_on_corrupted_ones(logistic, tmp_path):
    metrics = Robustness(TWO, severities=(2, 5)).evaluate(small_bench(tmp_path))
    table = {kind: [logistic(*features("test", kind, s)) for s in (2, 5)] for kind in TWO}
    clean = logistic(*features())
    mean = np.mean(list(table.values()))
    assert list(metrics) == ["top1", "top1_clean", "top1_drop", *(f"top1_{kind}" for kind in TWO)]
    expected = [mean, clean, clean - mean, *(np.mean(found) for found in table.values())]
    assert list(metrics.values()) == pytest.approx(expected, abs=1e-9)
    assert clean > mean + 0.1
    lines = (tmp_path / "evaluations/robustness/top1.csv").read_text().splitlines()
    rows = list(csv.DictReader(lines))
    assert [row["corruption"] for row in rows] == list(TWO)
    written = [[float(row[f"severity_{s}"]) for s in (2, 5)] for row in rows]
    np.testing.assert_allclose(written, list(table.values()), atol=1e-9)


def test_nearest_neighbours():
    metrics = Robustness(TWO[:1], (3,), "knn", k=1).evaluate(small_bench())
    (x, label), (test, truth) = features("train"), features("test", TWO[0], 3)
    found = KNeighborsClassifier(1).fit(normalize(x), label)
    assert metrics["top1"] == pytest.approx(found.score(normalize(test), truth), abs=1e-9)


def classifier(outputs):
    torch.manual_seed(0)
    trunk = small_model().trunk
    head = HEADS.build({"name": "linear", "out_dim": outputs}, in_dim=64)
    return SSLModel(trunk, [head], mean=(0.3, 0.3, 0.3), std=(0.4, 0.4, 0.4))


def test_the_models_own_scorer():
    model = classifier(10)
    metrics = Robustness(TWO[:1], (1,), "scorer").evaluate(small_bench(model=model))
    x, label = features()
    logits = torch.from_numpy(x).float() @ model.heads[0].weight.T + model.heads[0].bias
    assert metrics["top1_clean"] == pytest.approx((logits.argmax(1).numpy() == label).mean())


@pytest.mark.parametrize(
    ("outputs", "message"),
    [(3, "has 3 outputs, the labelled images have 10 classes"), (None, "model has no classifier")],
)
def test_a_scorer_of_other_classes_is_refused(outputs, message):
    model = small_model() if outputs else SSLModel(small_model().trunk, mean=[0], std=[1])
    with pytest.raises(ConfigError, match=rf"robustness\.classifier: the .*{message}.* or knn"):
        Robustness(TWO, classifier="scorer").check(small_bench(model=model))


def test_a_process_without_a_test_image(monkeypatch):
    monkeypatch.setattr(robustness, "rank", lambda: 1)
    monkeypatch.setattr(robustness, "world_size", lambda: 2)
    metrics = Robustness(TWO[:1], (1,)).evaluate(small_bench(test=SomeDigits(1)))
    assert metrics["top1_clean"] == metrics["top1"] == 0  # rank 0 would have the only one


def test_all_kinds_at_all_severities():
    """75 passes; each is over the same images, in the same order."""
    bench = small_bench(test=SomeDigits(6))
    asked, seen = [], bench.seen

    def watched(split, labelled, layers, **settings):
        asked.append((split, *labelled.transforms))
        return seen(split, labelled, layers, **settings)

    bench.seen = watched
    metrics = Robustness(classifier="knn").evaluate(bench)
    wanted = [{"name": "corruption", "kind": k, "severity": s} for k in KINDS for s in range(1, 6)]
    assert asked == [("train",), ("test",), *(("test", changed) for changed in wanted)]
    assert list(metrics)[3:] == [f"top1_{kind}" for kind in KINDS]
    assert all_kinds() == KINDS


def evaluate_on_rank(rank, world):
    load_entries()
    return Robustness(TWO, (1, 5)).evaluate(small_bench(test=SomeDigits(21)))


def test_the_same_on_several_processes():
    alone = evaluate_on_rank(0, 1)
    for metrics in run_ranks(evaluate_on_rank, 2):
        assert metrics == pytest.approx(alone, abs=1e-9)


def test_builds_from_a_config():
    built = EVALUATIONS.build({"corruptions": ["fog"]}, "evaluations.robustness")
    assert (built.kinds, built.severities) == (("fog",), (1, 2, 3, 4, 5))


def test_the_severities_are_those_of_the_transform():
    with pytest.raises(ConfigError, match="from 0 to 5"):
        TRANSFORMS.build({"name": "corruption", "severity": 6})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"corruptions": ("frog",)}, r"robustness\.corruptions\[0\]\.kind: 'frog' is .* 'fog'\?"),
        ({"corruptions": ()}, r"robustness\.corruptions: \[\]; needs at least one kind"),
        ({"severities": (0, 1)}, r"robustness\.severities: \[0, 1\]; needs numbers from 1 to 5"),
        ({"C": 0.0}, r"evaluations\.robustness\.C: \[0\.0\]; needs numbers above 0"),
        ({"k": 0}, r"evaluations\.robustness: k needs to be 1 or more, and temperature above 0"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(ConfigError, match=message):
        Robustness(**settings)
