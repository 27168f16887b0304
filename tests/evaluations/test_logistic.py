import numpy as np
import pytest
import torch
from distributed import run_ranks
from evaluations.pixels import PixelBench, digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler, normalize

from vissl_lite import EVALUATIONS, ConfigError
from vissl_lite.evaluations._classifiers import fit, linear_classifier, scores
from vissl_lite.evaluations._split import split
from vissl_lite.evaluations.logistic import Logistic


def numbers(part):
    x, label = digits(part)
    return x.double().numpy(), label.numpy()


def sklearn_accuracy(C, scale, rows=slice(None)):
    """Top 1 and top 5 on the test images, without any of our code."""
    (x, label), (test, truth) = numbers("train"), numbers("test")
    x, label = x[rows], label[rows]
    if scale == "standardise":
        scaler = StandardScaler().fit(x)
        x, test = scaler.transform(x), scaler.transform(test)
    if scale == "l2":
        x, test = normalize(x), normalize(test)
    order = np.argsort(-LogisticRegression(C=C, max_iter=1000).fit(x, label).predict_proba(test), 1)
    hit = order == truth[:, None]
    return hit[:, :1].any(1).mean(), hit[:, :5].any(1).mean()


@pytest.mark.parametrize(("C", "scale"), [(0.01, "standardise"), (1.0, "l2"), (1.0, "none")])
def test_a_given_C_equals_sklearn_on_real_digits(C, scale):
    bench = PixelBench()
    metrics = Logistic(C=(C,), scale=scale).evaluate(bench)
    top1, top5 = sklearn_accuracy(C, scale)
    assert list(metrics) == ["top1", "top5", "top1_pixels"]
    assert metrics["top1"] == metrics["top1_pixels"] == pytest.approx(top1, abs=1e-3)
    assert metrics["top5"] == pytest.approx(top5, abs=1e-3)
    assert top1 > 0.9
    assert bench.notes == []


def test_C_is_chosen_on_held_out_images_and_fitted_again_to_all():
    candidates, bench = (1e-6, 1e-3, 0.1), PixelBench()
    metrics = Logistic(C=candidates).evaluate(bench)
    fitted, held = (rows.numpy() for rows in split(1438, 0.1, 0, ""))
    x, label = numbers("train")
    scaler = StandardScaler().fit(x[fitted])
    models = [
        LogisticRegression(C=C, max_iter=1000).fit(scaler.transform(x[fitted]), label[fitted])
        for C in candidates
    ]
    found = [model.score(scaler.transform(x[held]), label[held]) for model in models]
    best = candidates[int(np.argmax(found))]
    assert min(found) < max(found)
    assert bench.notes == [
        f"logistic: pixels, C = {best:g} is best on the held-out images: {max(found):.4f}"
    ]
    assert metrics["top1"] == pytest.approx(sklearn_accuracy(best, "standardise")[0], abs=1e-3)


def test_every_layer_has_its_own_C():
    metrics = Logistic(layers=("noise", "pixels"), C=(1e-6, 0.1)).evaluate(PixelBench())
    assert list(metrics) == ["top1", "top5", "top1_noise", "top1_pixels"]
    assert metrics["top1"] == metrics["top1_pixels"]
    assert metrics["top1_pixels"] == pytest.approx(
        sklearn_accuracy(0.1, "standardise")[0], abs=1e-3
    )
    assert metrics["top1_noise"] < 0.3


def test_a_layer_is_chosen_on_held_out_images_even_with_one_C():
    bench = PixelBench(train_images=300)
    metrics = Logistic(layers=("noise", "pixels"), C=(0.1,)).evaluate(bench)
    assert metrics["top1"] == metrics["top1_pixels"] > metrics["top1_noise"]
    assert bench.notes[0].startswith("logistic: pixels, C = 0.1 is best on the held-out images")


def test_classes_without_train_images_are_never_hit():
    x, label = numbers("train")
    model = linear_classifier("logistic", "none", 1.0, 1000)
    few = label < 3
    assert fit(model, x[few], label[few])
    score_NC = scores(model, x, 10)
    assert score_NC[:, 3:].isnan().all()
    assert (score_NC[few, :3].argmax(1).numpy() == label[few]).mean() > 0.99


def test_two_classes():
    x, label = numbers("train")
    model = linear_classifier("logistic", "none", 1.0, 1000)
    two = (label == 3) | (label == 5)
    assert fit(model, x[two], label[two])
    score_NC = scores(model, x[two], 10)
    assert score_NC[:, [3, 5]].isfinite().all()
    expected = torch.from_numpy(model.predict(x[two]) == 5)
    assert torch.equal(score_NC[:, 5] > score_NC[:, 3], expected)


def test_an_optimum_that_is_not_reached_is_noted():
    bench = PixelBench(train_images=200)
    Logistic(C=(10.0,), max_iter=3).evaluate(bench)
    [note] = bench.notes
    assert note.startswith("logistic: 1 of 1 classifiers did not converge in 3 iterations;")


def evaluate_on_rank(rank, world):
    bench = PixelBench(train_images=300)
    return Logistic(layers=("noise", "pixels"), C=(0.001, 0.1)).evaluate(bench), bench.notes


def test_the_same_on_several_processes():
    assert run_ranks(evaluate_on_rank, 3) == [evaluate_on_rank(0, 1)] * 3


def test_builds_from_a_config():
    built = EVALUATIONS.build({"C": [1], "scale": "l2"}, "evaluations.logistic")
    assert (built.C, built.scale, built.layers) == ((1.0,), "l2", None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"C": ()}, r"evaluations\.logistic\.C: \[\]; needs numbers above 0"),
        ({"C": (0.0,)}, r"evaluations\.logistic\.C: \[0\.0\]; needs numbers above 0"),
        ({"max_iter": 0}, r"evaluations\.logistic\.max_iter: 0; needs 1 or more"),
        ({"held_out": 0.0}, r"evaluations\.logistic\.held_out: 0 of 9 .* both sides need images"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(ConfigError, match=message):
        Logistic(**settings).evaluate(PixelBench(train_images=9))


def test_one_class_is_an_error():
    with pytest.raises(ConfigError, match=r"labelled\.train: all 1 images .* of one class"):
        Logistic().evaluate(PixelBench(train_images=1))
