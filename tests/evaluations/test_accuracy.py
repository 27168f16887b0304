"""accuracy: of the model's own classifier, against scikit-learn."""

from types import SimpleNamespace

import pytest
import torch
from sklearn.metrics import top_k_accuracy_score

from vissl_lite import ConfigError
from vissl_lite.engine.features import FeatureSet
from vissl_lite.evaluations.accuracy import Accuracy


def bench_of(score_MC, label_M, classes=10, **scorer):
    model = SimpleNamespace(scorer=SimpleNamespace(out_dim=score_MC.shape[1], **scorer))
    found = FeatureSet({"logits": score_MC}, label_M, [])
    return SimpleNamespace(model=model, num_classes=classes, features=lambda split, layers: found)


def test_against_scikit_learn():
    score_MC, label_M = torch.randn(500, 10), torch.randint(10, (500,))
    score_MC[torch.arange(500), label_M] += 1.0
    found = Accuracy().evaluate(bench_of(score_MC, label_M))
    for k in (1, 5):
        expected = top_k_accuracy_score(label_M.numpy(), score_MC.numpy(), k=k)
        assert found[f"top{k}"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("scorer", "classes", "message"),
    [
        (None, 10, "the model has no classifier; train one with heads=.linear."),
        ({}, 7, "the classifier has 10 outputs, the labelled images have 7 classes"),
    ],
)
def test_models_that_cannot_be_evaluated(scorer, classes, message):
    bench = bench_of(torch.zeros(2, 10), torch.zeros(2, dtype=torch.int64), classes)
    bench.model.scorer = None if scorer is None else SimpleNamespace(out_dim=10, **scorer)
    with pytest.raises(ConfigError, match=rf"evaluations\.accuracy: {message}"):
        Accuracy().evaluate(bench)
