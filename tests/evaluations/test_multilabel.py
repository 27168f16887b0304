import numpy as np
import pytest
import torch
from engine.some_digits import CPU, FP32, SomeDigits, small_model
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from vissl_lite import EVALUATIONS, ConfigError
from vissl_lite.config import Labelled
from vissl_lite.data.batch import Tags
from vissl_lite.engine.bench import Bench
from vissl_lite.engine.features import FeatureSet, exchange_tags
from vissl_lite.evaluations.multilabel import Multilabel, having
from vissl_lite.sources.digits_tags import DigitsTags

SPLITS = {"train": 300, "test": 150}


def mosaics(split, images):
    """Pixels [N, 256] and the tags of each mosaic."""
    samples = [DigitsTags(images, split=split, seed=len(split))[i] for i in range(images)]
    x = torch.from_numpy(np.stack([sample.image for sample in samples])).flatten(1).float() / 255
    return x, [np.asarray(sample.tags).tolist() for sample in samples]


class MosaicBench:
    """The mosaics' pixels as features: a bench without a model."""

    num_classes, device, model = 55, CPU, type("Model", (), {"layer": "pixels"})

    def __init__(self):
        self.notes = []
        self.note = self.notes.append

    def features(self, split, layers, target):
        assert (layers, target) == (["pixels"], "tags")
        x, rows = mosaics(split, SPLITS[split])
        return FeatureSet({"pixels": x}, torch.full((len(x),), -1), [], Tags.pack(rows))


def machine(kind, C):
    if kind == "logistic":
        return LogisticRegression(C=C, max_iter=2000)
    weight = {1: 2, -1: 1}
    return LinearSVC(C=C, class_weight=weight, dual=True, max_iter=2000, random_state=0)


def by_sklearn(kind, candidates):
    """Average precision of every judged tag, with VISSL's calls of scikit-learn."""
    (x, rows), (test, truth) = (mosaics(split, images) for split, images in SPLITS.items())
    x, test = normalize(x.double()), normalize(test.double())
    found = {}
    for tag in range(55):
        has = np.array([1 if tag in row else -1 for row in rows])
        tested = np.array([tag in row for row in truth])
        if min((has == 1).sum(), (has == -1).sum()) < 3 or not tested.any():
            continue
        scores = [
            cross_val_score(machine(kind, C), x, has, cv=3, scoring="average_precision").mean()
            for C in candidates
        ]
        best = machine(kind, candidates[int(np.argmax(scores))]).fit(x, has)
        found[tag] = average_precision_score(tested, best.decision_function(test))
    return found


@pytest.mark.parametrize(("kind", "C"), [("svm", (0.1, 1.0)), ("logistic", (1.0, 100.0))])
def test_equals_sklearn_on_mosaics_of_real_digits(kind, C):
    bench = MosaicBench()
    expected = by_sklearn(kind, C)
    metrics = Multilabel(kind, C).evaluate(bench)
    assert metrics == {"mAP": pytest.approx(np.mean(list(expected.values())), abs=1e-3)}
    assert 20 < len(expected) < 55
    assert bench.notes == [f"multilabel: {len(expected)} of 55 tags have enough images"]
    assert metrics["mAP"] > 0.15  # by chance it is the share of images with the tag, 0.03


def test_columns_of_tags():
    tags = Tags.pack([[2, 1], [], [1], [0]])
    assert [having(tags, tag).tolist() for tag in range(4)] == [
        [0, 0, 0, 1],
        [1, 0, 1, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 0],
    ]


def bench_of(train, test, size):
    labelled = Labelled(size=size, transforms=[], batch_size=16)
    return Bench(small_model(), labelled, {"train": train, "test": test}, device=CPU, numerics=FP32)


def evaluate_on_rank(rank, world):
    return Multilabel(C=(1.0,)).evaluate(bench_of(DigitsTags(60), DigitsTags(41, split="test"), 16))


def test_of_a_model_on_several_processes(ranks):
    alone = evaluate_on_rank(0, 1)
    assert 0 < alone["mAP"] < 1
    for metrics in ranks(3)(evaluate_on_rank):
        assert metrics == pytest.approx(alone, abs=1e-3)


class SomeTags(SomeDigits):
    """Tags instead of labels: image i has the tags below i % 3, image 4 none known."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        sample.tags = None if index == 4 else list(range(index % 3))
        sample.label = 7 if index == 5 else None
        return sample


def test_bench_gives_tags_of_readable_images():
    bench = bench_of(SomeTags(8, broken=(2,)), SomeTags(3), 8)
    found = bench.features("train", target="tags")
    assert found.broken == ["n2"]
    assert found.label_N.tolist() == [-1, -1, -1, 7, -1, -1]
    tags = [found.tags.slice(i, i + 1).values_T.tolist() for i in range(6)]
    assert tags == [[], [0], [], [0, 1], [], [0]]
    assert found.features["res5"].shape == (6, 64)
    labelled = bench.features("train")
    assert (labelled.label_N.tolist(), labelled.tags) == ([7], None)


def test_images_without_tags_are_an_error():
    with pytest.raises(ConfigError, match=r"labelled\.train: has no readable image with tags;"):
        Multilabel().evaluate(bench_of(SomeDigits(5), SomeDigits(5), 8))


def exchange_on_rank(rank, world):
    own = list(range(rank, 7, world))
    tags = exchange_tags(torch.tensor(own), [range(i % 4) for i in own])
    return tags.values_T.tolist(), tags.offsets.tolist()


def test_tags_of_all_processes_in_the_order_of_the_source(ranks):
    alone = [0, 0, 1, 0, 1, 2, 0, 0, 1], [0, 0, 1, 3, 6, 6, 7, 9]
    assert exchange_on_rank(0, 1) == alone
    assert ranks(3)(exchange_on_rank) == [alone] * 3


def test_builds_from_a_config():
    built = EVALUATIONS.build({"classifier": "logistic", "C": [1]}, "evaluations.multilabel")
    assert (built.classifier, built.C, built.folds) == ("logistic", (1.0,), 3)
    with pytest.raises(ConfigError, match=r"evaluations\.multilabel\.folds: 1; needs 2 or more"):
        EVALUATIONS.build({"folds": 1}, "evaluations.multilabel")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"C": ()}, r"evaluations\.multilabel\.C: \[\]; needs numbers above 0"),
        ({"folds": 200}, r"labelled: no tag is on 200 train images, missing on 200, and on"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(ConfigError, match=message):
        Multilabel(**settings).evaluate(MosaicBench())
