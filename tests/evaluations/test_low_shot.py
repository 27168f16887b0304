import numpy as np
import pytest
import torch
from distributed import run_ranks
from evaluations.pixels import PixelBench, digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from vissl_lite import EVALUATIONS, ConfigError
from vissl_lite.evaluations._classifiers import fit, linear_classifier
from vissl_lite.evaluations._split import split
from vissl_lite.evaluations.low_shot import LowShot, first_of_each_class, shuffled


def numbers(part):
    x, label = digits(part)
    return normalize(x.double().numpy()), label.numpy()


def vissl_svm(x, label, test, C):
    """Scores [M, 10], a machine per class, with the settings of VISSL's `svm_trainer.py`."""
    settings = {"class_weight": {1: 2, -1: 1}, "intercept_scaling": 1.0, "tol": 1e-4}
    settings |= {"penalty": "l2", "loss": "squared_hinge", "dual": True, "max_iter": 2000}
    machines = [
        LinearSVC(C=C, random_state=0, **settings).fit(x, np.where(label == c, 1, -1))
        for c in range(10)
    ]
    return np.stack([machine.decision_function(test) for machine in machines], axis=1)


def sklearn_predict(kind, x, label, test, C):
    if kind == "svm":
        return vissl_svm(x, label, test, C).argmax(1)
    return LogisticRegression(C=C, max_iter=2000).fit(x, label).predict(test)


def naive_draw(label, order, k):
    """The first k of each class, one image after the other."""
    return np.concatenate([[n for n in order if label[n] == c][:k] for c in range(10)]).astype(int)


def test_the_svm_is_the_one_of_vissl():
    (x, label), (test, _) = numbers("train"), numbers("test")
    x, label = x[:200], label[:200]
    model = linear_classifier("svm", "l2", 1.0, 2000, dict.fromkeys(range(10), 2))
    assert fit(model, x, label)
    expected = vissl_svm(x, label, test, 1.0)
    np.testing.assert_allclose(model.decision_function(test), expected, atol=2e-3)


@pytest.mark.parametrize("k", [1, 3, 200])
def test_draws_the_first_k_of_each_class(k):
    _, label = digits("train")
    order = shuffled(torch.arange(500), seed=0, draw=1)
    rows = first_of_each_class(label, order, k)
    assert rows.tolist() == naive_draw(label.numpy(), order.tolist(), k).tolist()
    if k < 200:
        assert label[rows].bincount().tolist() == [k] * 10


def test_draws_differ_by_number_and_seed_and_contain_each_other():
    _, label = digits("train")
    rows = torch.arange(len(label))
    orders = [shuffled(rows, seed, draw) for seed, draw in [(0, 0), (0, 0), (0, 1), (1, 0)]]
    same, again, *others = (set(first_of_each_class(label, o, 4).tolist()) for o in orders)
    assert same == again
    assert all(len(same & other) < 10 for other in others)
    assert same > set(first_of_each_class(label, orders[0], 3).tolist())


@pytest.mark.parametrize("kind", ["svm", "logistic"])
def test_equals_sklearn_on_real_digits(kind):
    metrics = LowShot((1, 5), 3, (kind,), C=(1.0,)).evaluate(PixelBench())
    (x, label), (test, truth) = numbers("train"), numbers("test")
    for k in (1, 5):
        found = []
        for r in range(3):
            rows = naive_draw(label, shuffled(torch.arange(len(label)), 0, r).tolist(), k)
            found.append((sklearn_predict(kind, x[rows], label[rows], test, 1.0) == truth).mean())
        assert metrics[f"top1_{kind}_k{k}"] == pytest.approx(np.mean(found), abs=1e-3)
        assert metrics[f"top1_{kind}_k{k}_std"] == pytest.approx(np.std(found), abs=1e-3)
    assert metrics["top1"] == metrics[f"top1_{kind}_k1"] > 0.5
    assert metrics["top1_std"] == metrics[f"top1_{kind}_k1_std"] > 0
    assert metrics[f"top1_{kind}_k5"] > metrics["top1"] + 0.1


def test_C_is_chosen_on_images_that_no_draw_contains():
    candidates, draws = (1e-4, 1.0, 1e3), 2
    metrics = LowShot((4,), draws, ("logistic",), C=candidates).evaluate(PixelBench())
    free, held = split(1438, 0.1, 0, "")
    (x, label), (test, truth) = numbers("train"), numbers("test")
    chooser, tested = np.zeros((2, draws, 3))
    for r in range(draws):
        rows = naive_draw(label, shuffled(free, 0, r).tolist(), 4)
        for i, C in enumerate(candidates):
            model = LogisticRegression(C=C, max_iter=2000).fit(x[rows], label[rows])
            chooser[r, i] = model.score(x[held], label[held])
            tested[r, i] = model.score(test, truth)
    best = chooser.mean(0).argmax()
    assert metrics["top1"] == pytest.approx(tested[:, best].mean(), abs=1e-3)
    assert metrics["top1_std"] == pytest.approx(tested[:, best].std(), abs=1e-3)


def test_names_and_range_of_the_metrics():
    bench = PixelBench()
    metrics = LowShot(shots=(1, 2), draws=2, C=(1.0,)).evaluate(bench)
    names = [
        f"top1_{c}_k{k}{std}" for c in ("svm", "logistic") for k in (1, 2) for std in ("", "_std")
    ]
    assert list(metrics) == ["top1", "top1_std", *names]
    assert all(0 <= value <= 1 for value in metrics.values())
    assert bench.notes == []


def test_a_class_with_fewer_images_is_noted():
    bench = PixelBench(train_images=60)
    LowShot(shots=(1, 50), draws=1, classifiers=("logistic",), C=(1.0,)).evaluate(bench)
    fewest = digits("train")[1][:60].bincount().min()
    assert bench.notes == [
        f"low_shot: k = 50, but a class has only {fewest} train images to draw from: all of them"
        " are taken"
    ]


def evaluate_on_rank(rank, world):
    bench = PixelBench(train_images=300, test_images=100)
    return LowShot(shots=(1, 2), draws=2, C=(0.1, 1.0)).evaluate(bench)


def test_the_same_on_several_processes():
    assert run_ranks(evaluate_on_rank, 3) == [evaluate_on_rank(0, 1)] * 3


def test_deterministic_by_seed():
    shots = [LowShot((1,), 1, ("logistic",), (1.0,), seed=seed) for seed in (0, 0, 1)]
    first, again, other = (entry.evaluate(PixelBench()) for entry in shots)
    assert first == again != other


def test_a_negative_seed_is_a_seed():
    settings = {"shots": (1,), "draws": 1, "classifiers": ("svm",), "C": (1.0,)}
    assert LowShot(**settings, seed=-1).evaluate(PixelBench())["top1"] > 0.3


def test_builds_from_a_config():
    config = {"shots": [3], "classifiers": ["logistic"]}
    built = EVALUATIONS.build(config, "evaluations.low_shot")
    assert (built.shots, built.classifiers, built.draws) == ((3,), ("logistic",), 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shots": (0,)}, r"evaluations\.low_shot\.shots: \[0\]; needs numbers from 1"),
        ({"draws": 0}, r"evaluations\.low_shot: needs a draw and a classifier, at least"),
        ({"classifiers": ()}, r"evaluations\.low_shot: needs a draw and a classifier, at least"),
        ({"C": (-1.0,)}, r"evaluations\.low_shot\.C: \[-1\.0\]; needs numbers above 0"),
        ({"held_out": 1.0}, r"evaluations\.low_shot\.held_out: 1 of 9 .* both sides need images"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(ConfigError, match=message):
        LowShot(**settings).evaluate(PixelBench(train_images=9))
