"""Which words are weights, and what is found on the disk."""

import json
import os

import pytest
import torch

from vissl_lite import ConfigError
from vissl_lite.plugins import load_entries
from vissl_lite.suite.subjects import Named, check_labels, is_weights, run_identity, subjects_of

load_entries()


@pytest.fixture
def run(tmp_path):
    """A folder with two checkpoints of a run, a third being written, and its records."""
    folder = tmp_path / "lr=0.1" / "run"
    for step in (5, 10):
        checkpoint = folder / "checkpoints" / f"step-{step:08d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "state.pt").write_bytes(b"1234")
        (checkpoint / "meta.json").write_text(json.dumps({"step": step, "files": {"state.pt": 4}}))
    (folder / "checkpoints" / "step-00000015.tmp").mkdir()
    (folder / "config.yaml").write_text("seed: 3\n")
    (folder / "metrics.jsonl").write_text('{"kind": "start", "steps_per_epoch": 4}\n')
    return folder


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("runs/x", True),
        ("simclr=runs/x", True),
        ("v1.2=x.pth", True),
        ("runs/lr=0.1/x", True),
        ("untrained:runs/x", True),
        ("evaluations=[knn]", False),
        ("evaluations.knn.k=[20]", False),
        ("data/source=digits", False),
        ("dataset=cifar10", False),
        ("config=evaluate/suite", False),
        ("launch.timeout_s=3", False),
        ("+evaluations=knn", False),
    ],
)
def test_words(word, expected):
    assert is_weights(word) is expected


def test_labels():
    assert Named.parse("a=untrained:runs/x/") == Named("a", "runs/x", True)
    assert Named.parse("lr=0.1/run").given == "0.1/run"
    assert Named.parse("swav_resnet50").label == "swav_resnet50"
    check_labels([Named("a", "x"), Named("a", "x")])
    with pytest.raises(ConfigError, match="x and y are both called 'a'; give one of them a label"):
        check_labels([Named("a", "x"), Named("a", "y")])
    with pytest.raises(ConfigError, match="'a=' names no weights"):
        Named.parse("a=")


def test_newest_and_every_checkpoint(run):
    named = Named.parse(str(run))
    assert named.label == "lr=0.1/run"
    [newest] = subjects_of(named)
    assert (newest.step, newest.epoch, newest.home) == (10, 2.5, str(run))
    assert newest.init == str(run / "checkpoints" / "step-00000010")
    assert [s.step for s in subjects_of(named, every=True)] == [5, 10]
    (run / "checkpoints" / "best").symlink_to("step-00000005")
    [best] = subjects_of(Named.parse(f"b={run / 'checkpoints' / 'best'}"))
    assert best.identity == subjects_of(named, every=True)[0].identity


def test_a_checkpoint_that_is_pruned_is_gone(run):
    old, new = subjects_of(Named.parse(str(run)), every=True)
    (run / "checkpoints" / "step-00000005" / "meta.json").unlink()
    assert (old.gone, new.gone) == (True, False)
    assert [s.step for s in subjects_of(Named.parse(str(run)), every=True)] == [10]


def test_another_run_in_the_same_folder_is_another(run):
    [before] = subjects_of(Named.parse(str(run)))
    known = run_identity(run)
    os.utime(run / "config.yaml", ns=(1, 1))
    [after] = subjects_of(Named.parse(str(run)))
    assert before.identity != after.identity
    assert known != run_identity(run)


def test_untrained_and_files(run, tmp_path):
    [subject] = subjects_of(Named.parse(f"untrained:{run}"))
    assert (subject.init, subject.home, subject.label) == (None, str(run), "untrained lr=0.1/run")
    for name, value in (("a.pth", 1.0), ("b.pth", 1.0), ("c.pth", 2.0)):
        torch.save({"x": torch.tensor(value)}, tmp_path / name)
    a, b, c = (
        subjects_of(Named.parse(str(tmp_path / name)))[0].identity["file"]
        for name in ("a.pth", "b.pth", "c.pth")
    )
    assert len(a) == 32
    assert len({a, c}) == 2
    assert b == subjects_of(Named.parse(f"x={tmp_path / 'b.pth'}"))[0].identity["file"]


def test_nothing_there(run, tmp_path):
    with pytest.raises(ConfigError, match=r"swav_resnet5 is no run.*did you mean 'swav_resnet50'"):
        subjects_of(Named.parse("swav_resnet5"))
    with pytest.raises(ConfigError, match=r"\[knn\] is no run.*did you mean 'evaluations'"):
        subjects_of(Named.parse("evaluatons=[knn]"))
    with pytest.raises(ConfigError, match=r"did you mean 'evaluations\.knn\.k=\[3\]'"):
        subjects_of(Named.parse("knn.k=[3]"))
    for checkpoint in (run / "checkpoints").glob("step*"):
        checkpoint.rename(tmp_path / checkpoint.name)
    with pytest.raises(ConfigError, match="has no complete checkpoint; --watch waits"):
        subjects_of(Named.parse(str(run)))
    assert subjects_of(Named.parse(str(run)), wait=True) == []
