"""Features against those of the engine; neighbours, map, prototypes, confusion against sklearn."""

import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vissl_lite import ConfigError
from vissl_lite.engine.features import extract
from vissl_lite.engine.numerics import Numerics
from vissl_lite.report import look as looking
from vissl_lite.report.confusion import confusion, counted, predicted
from vissl_lite.report.look import Looker, spread
from vissl_lite.report.maps import placed
from vissl_lite.report.neighbours import nearest, purity, queries
from vissl_lite.report.prototypes import effective, prototypes, usage
from vissl_lite.report.runs import Run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def looker(run_dir):
    return Looker(Run.read(run_dir), CPU)


@pytest.fixture(scope="module")
def test(looker):
    return looker.split("test")


def test_features_are_those_of_evaluations(looker, test):
    numerics = Numerics("fp32", "contiguous", reason="test")
    layers = [looker.model.layer, "logits"]
    found = extract(looker.model, test.source, looker.views, layers, device=CPU, numerics=numerics)
    torch.testing.assert_close(test.x_ND, found.features[layers[0]], rtol=0, atol=1e-5)
    torch.testing.assert_close(test.logits_NK, found.features["logits"], rtol=0, atol=1e-5)
    assert test.label_N.tolist() == found.label_N.tolist()
    assert test.origin == "all 359 images of labelled.test"
    assert test.weights == "checkpoint step-00000006"


def test_at_most_so_many_images_evenly(looker, monkeypatch):
    monkeypatch.setattr(looking, "IMAGES", 100)
    look = looker.data()
    assert len(look.indices_N) == 100
    assert look.origin == "100 of the 1,438 images of data.source"
    assert spread(1797, 100)[:2] == [0, 18]
    assert spread(3, 100) == [0, 1, 2]


def test_without_labelled_images_the_size_is_that_of_the_crops(run_dir):
    run = Run.read(run_dir)
    run.tree = {**run.tree, "labelled": {"train": None, "test": None}}
    plain = Looker(run, CPU)
    assert plain.views.sizes == [16]
    assert plain.split("test") is None


def test_no_checkpoint_is_said(run_dir, tmp_path):
    (tmp_path / "config.yaml").write_text((run_dir / "config.yaml").read_text())
    with pytest.raises(ConfigError, match="the run has no complete checkpoint"):
        Looker(Run.read(tmp_path), CPU)


def test_neighbours_are_those_of_sklearn(test):
    x = test.x_ND.double()
    cosine_NK, index_NK = nearest(x, 5)
    model = NearestNeighbors(n_neighbors=6, metric="cosine", algorithm="brute").fit(x.numpy())
    distance, index = model.kneighbors(x.numpy())
    np.testing.assert_allclose(cosine_NK.numpy(), 1 - distance[:, 1:], atol=1e-9)
    assert (index_NK.numpy() == index[:, 1:]).mean() > 0.99  # ties may change places
    share = purity(test.label_N, index_NK)
    labels = test.label_N.numpy()
    expected = (labels[index_NK.numpy()] == labels[:, None]).mean(1)
    np.testing.assert_allclose(share.numpy(), expected, atol=1e-6)


def test_queries_are_of_different_classes(test):
    assert test.label_N[queries(test)].tolist() == [0, 1, 2, 3, 4, 5]
    plain = dataclasses.replace(test, label_N=torch.full_like(test.label_N, -1))
    assert len(set(queries(plain))) == 6


def test_the_map_is_the_same_every_time_and_keeps_groups_together():
    g = torch.Generator().manual_seed(0)
    centres = torch.eye(3, 8).repeat_interleave(20, 0)
    x_ND = centres + 0.05 * torch.randn(60, 8, generator=g)
    place = placed(x_ND)
    assert np.array_equal(place, placed(x_ND))
    assert place.min() == 0
    assert place.max() == 1
    index = NearestNeighbors(n_neighbors=6).fit(place).kneighbors(place)[1][:, 1:]
    assert (index // 20 == np.arange(60)[:, None] // 20).mean() == 1
    assert np.array_equal(placed(torch.ones(40, 8)), np.full((40, 2), 0.5))  # collapsed


def test_usage_of_prototypes(test, looker):
    used_K = usage(test.logits_NK)
    counts = np.bincount(test.logits_NK.numpy().argmax(1), minlength=12)
    assert used_K.tolist() == counts.tolist()
    assert effective(torch.full((7,), 3)) == pytest.approx(7)
    assert effective(torch.tensor([5, 0, 0])) == pytest.approx(1)
    text = prototypes(test, looker.config.heads)
    assert f"{(counts > 0).sum()} of 12 prototypes have an image" in text
    assert prototypes(dataclasses.replace(test, logits_NK=None), []) is None


def test_confusion_is_that_of_sklearn(looker, test):
    train = looker.split("train")
    guess_N, _ = predicted(train, test)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    model.fit(train.x_ND.double().numpy(), train.label_N.numpy())
    assert np.array_equal(guess_N, model.predict(test.x_ND.double().numpy()))
    expected = confusion_matrix(test.label_N.numpy(), guess_N, labels=range(10))
    assert np.array_equal(counted(test.label_N.numpy(), guess_N), expected)
    assert f"is right for {(guess_N == test.label_N.numpy()).mean():.1%}" in confusion(train, test)
    assert confusion(None, test) is None


def test_classes_of_other_names_are_not_confused(looker, test):
    fewer = dataclasses.replace(test, source=SimpleNamespace(classes=["a", "b"]))
    assert fewer.class_name(1) == "b"
    assert fewer.class_name(7) == "class 7"
    assert "labelled.train and labelled.test differ" in confusion(looker.split("train"), fewer)


def test_features_that_are_no_numbers_are_said(looker, monkeypatch):
    model = copy.deepcopy(looker.model)
    next(model.parameters()).data.fill_(float("nan"))
    monkeypatch.setattr(looker, "model", model)
    with pytest.raises(ConfigError, match=r"labelled\.test: features of \d+ of \d+ images are NaN"):
        looker.split("test")
