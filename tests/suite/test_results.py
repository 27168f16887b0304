"""A result is found again if, and only if, all that decides it is the same."""

import copy
import json
import os
from dataclasses import replace

import pytest
from suite.some_runs import DIGITS, result
from training import small

from vissl_lite.suite.results import FORMAT, Store, annotations_of, settings_of

LABELLED = f"++labelled={DIGITS}"


def test_what_is_kept_is_found(tmp_path):
    store, kept = Store(tmp_path), result(metrics={"top1": 1 / 3, "top5": float("nan")})
    store.keep(kept)
    found = store.find("knn", kept.identity, kept.settings)
    assert found is not None
    assert found.main == ("top1", 1 / 3)
    assert found.metrics["top5"] != found.metrics["top5"]
    assert store.find("linear", kept.identity, kept.settings) is None
    assert store.find("knn", {"file": "0"}, kept.settings) is None
    assert store.find("knn", kept.identity, {**kept.settings, "seed": 1}) is None
    [file] = (tmp_path / "results").iterdir()
    assert file.name.startswith("knn-")


def test_a_problem_is_kept_but_not_done(tmp_path):
    store, kept = Store(tmp_path), result(problem="needs tags")
    store.keep(kept)
    assert store.find("knn", kept.identity, kept.settings) is None
    assert [r.problem for r in store.of_run("a", "r")] == ["needs tags"]


def test_another_format_is_passed_over(tmp_path):
    store, kept = Store(tmp_path), result()
    store.keep(kept)
    [file] = (tmp_path / "results").iterdir()
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": FORMAT + 1, "new": 1}))
    assert store.find("knn", kept.identity, kept.settings) is None


def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    store, kept = Store(tmp_path), result(metrics={"top1": 0.25})
    store.keep(kept)

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        store.keep(replace(kept, metrics={"top1": 0.75}))
    assert store.find("knn", kept.identity, kept.settings).metrics == {"top1": 0.25}
    assert [r.metrics["top1"] for r in store.of_run("a", "r")] == [0.25]


def test_annotations_are_known_by_their_content(tmp_path):
    file = tmp_path / "a.json"
    given = {"annotations_test": str(file), "images_test": str(tmp_path), "k": 3}
    assert annotations_of(given) == {}
    found = []
    for when, text in enumerate(("[1]", "[2]", "[1]")):
        file.write_text(text)
        os.utime(file, ns=(when, when))
        found.append(annotations_of(given))
    assert found[0] == found[2] != found[1]
    assert list(found[0]) == ["annotations_test"]


@pytest.fixture(scope="module")
def config():
    return small(LABELLED, "evaluations=[knn,linear]")


def changed(config, place, value):
    """The config with another value at `labelled.size` and the like."""
    config = whole = copy.deepcopy(config)
    *path, last = place.split(".")
    for key in path:
        config = config[key] if isinstance(config, dict) else getattr(config, key)
    if isinstance(config, dict):
        config[last] = value
    else:
        setattr(config, last, value)
    return whole


@pytest.mark.parametrize(
    ("place", "value", "decides"),
    [
        ("evaluations.knn", {"k": [7]}, True),
        ("labelled.size", 9, True),
        ("labelled.train", {"name": "digits", "split": "test"}, True),
        ("data.mean", (0.1, 0.1, 0.1), True),
        ("precision", "bf16", True),
        ("pool", "none", True),
        ("layer", "res4", True),
        ("seed", 1, True),
        ("evaluations.linear", {"epochs": 3}, False),
        ("data.workers", 2, False),
        ("labelled.batch_size", 9, False),
        ("device", "cuda", False),
        ("labelled.train", {"name": "digits", "split": "train"}, False),  # the default
    ],
)
def test_what_decides_a_result(config, place, value, decides):
    before = settings_of(config, "knn")
    assert json.loads(json.dumps(before)) == before
    other = changed(config, place, value)
    assert (settings_of(other, "knn") != before) is decides
