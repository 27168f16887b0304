"""Evaluating weights as a job of its own, and the recipes that do it."""

import json
from pathlib import Path

import pytest
import torch
from command import command
from distributed import run_ranks
from training import SMALL, composed, records, small, trained

from vissl_lite import EVALUATIONS, ConfigError
from vissl_lite.engine.dry_run import dry_run
from vissl_lite.engine.evaluate import evaluate_weights
from vissl_lite.engine.journal import save_config
from vissl_lite.schema import plain

LABELLED = (
    "++labelled={train: {name: digits}, test: {name: digits, split: test}, size: 16,"
    " transforms: [{name: resize, short_side: 16}]}"
)
TRAINING = (LABELLED, "++train.max_steps=8", "++train.log_every=8", "evaluations=[knn]")
TRAINING = (*TRAINING, "hooks=[evaluate,checkpoint]", "++data.mean=[0.3,0.3,0.3]")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that was evaluated at its end, and its results."""
    folder = tmp_path_factory.mktemp("run")
    tree = plain(composed(*SMALL, *TRAINING))
    save_config({key: value for key, value in tree.items() if key != "hydra"}, folder)
    return folder, trained(small(*TRAINING), folder).results


def evaluation(run_dir, *overrides):
    return small(
        LABELLED, "++data.mean=[0.3,0.3,0.3]", "++train.epochs=0", f"++init={run_dir}", *overrides
    )


def test_gives_what_the_run_itself_measured(run, tmp_path, capsys):
    folder, measured = run
    results = evaluate_weights(evaluation(folder, "evaluations=[knn]"), tmp_path)
    assert results == {name: measured[name] for name in measured if name.startswith("knn.")}
    assert json.loads((tmp_path / "results.json").read_text()) == results
    [record] = records(tmp_path, "eval")
    assert (record["name"], record["top1"]) == ("knn", results["knn.top1"])
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds == ["start", "note", "note", "eval", "end"]
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["evaluation", "metric", "value"]
    assert table[1].split() == ["knn", "top1", f"{results['knn.top1']:.4f}"]


def test_a_dry_run_looks_at_a_few_images_and_writes_nothing(run, tmp_path, monkeypatch, capsys):
    folder, _ = run
    monkeypatch.chdir(tmp_path)
    dry_run(evaluation(folder, "evaluations=[knn,linear]"))
    printed = " ".join(capsys.readouterr().out.split())
    assert "evaluations knn, linear train digits, 1,438 images of 10 classes" in printed
    assert "features [4, 64] images of 16 px, width of res5 init: 120 trunk tensors" in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluations=[knn]", "++trunk.depth=34"], "trunk"),
        (["evaluations=[knn]", "++evaluations.knn.layer=res9"], "no layer 'res9'"),
        (["evaluations=[]"], "evaluations: none given"),
        (["evaluations=[knn]", "hooks=[diagnose]", "++hooks.diagnose.patience=0"], "patience"),
    ],
)
def test_a_dry_run_finds_what_would_stop_the_evaluation(run, words, message):
    with pytest.raises(ConfigError, match=message):
        dry_run(evaluation(run[0], *words))


def test_several_evaluations_and_no_weights(tmp_path):
    config = evaluation(
        None, "++init=null", "evaluations=[knn,linear]", "++evaluations.linear.epochs=2"
    )
    results = evaluate_weights(config, tmp_path)
    assert {name.partition(".")[0] for name in results} == {"knn", "linear"}
    assert 0.2 < results["knn.top1"] < 1
    assert "no weights given" in records(tmp_path, "note")[0]["text"]


def test_hooks_of_a_job_that_only_evaluates(tmp_path):
    """`report` writes its page; of the others it is said that they do nothing."""
    config = evaluation(None, "++init=null", "evaluations=[knn]", "hooks=[checkpoint,report]")
    tree = plain(composed(*SMALL, *TRAINING, "++train.epochs=0", "hooks=[checkpoint,report]"))
    save_config({key: value for key, value in tree.items() if key != "hydra"}, tmp_path)
    evaluate_weights(config, tmp_path)
    notes = [note["text"] for note in records(tmp_path, "note")]
    assert notes[1] == "hooks checkpoint: nothing to do, for nothing is trained"
    assert notes[-1] == f"report: {tmp_path / 'report.html'}"
    assert "Evaluations</h2>" in (tmp_path / "report.html").read_text()


class Killed:
    def evaluate(self, bench):
        raise KeyboardInterrupt


def test_results_are_kept_as_they_come(tmp_path, monkeypatch):
    monkeypatch.setitem(EVALUATIONS._entries, "killed", Killed)
    config = evaluation(None, "++init=null", "evaluations=[knn]", "++evaluations.killed={}")
    with pytest.raises(KeyboardInterrupt):
        evaluate_weights(config, tmp_path)
    kept = json.loads((tmp_path / "results.json").read_text())
    assert kept["knn.top1"] == records(tmp_path, "eval")[0]["top1"]


def evaluate_on_rank(rank, world, folder, run_dir):
    torch.set_num_threads(1)
    return evaluate_weights(evaluation(run_dir, "evaluations=[knn]"), Path(folder))


def test_the_same_on_two_processes(run, tmp_path):
    folder, measured = run
    for results in run_ranks(evaluate_on_rank, 2, str(tmp_path), str(folder)):
        assert results["knn.top1"] == pytest.approx(measured["knn.top1"], abs=0.003)  # one image
    assert len(records(tmp_path, "eval")) == 1


def with_test_images(rank, world, folder, run_dir, splits):
    words = ["evaluations=[knn]", f"++labelled.test.split={splits[rank]}"]
    with pytest.raises(ConfigError) as said:
        evaluate_weights(evaluation(run_dir, *words), Path(folder))
    return str(said.value)


def test_all_ranks_have_the_same_labelled_images(run, tmp_path):
    """Each reads its own disk, and one copy is not complete."""
    for said in run_ranks(with_test_images, 2, str(tmp_path), str(run[0]), ["test", "all"]):
        assert said == (
            "labelled.test: 359 images of 10 classes on rank 0, 1,797 images of 10 classes on rank"
            " 1; give all machines the same images"
        )
    assert records(tmp_path, "eval") == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluations=[]"], r"evaluations: none given, and train\.epochs is 0"),
        (["evaluations=[knn]", "++labelled.train=null"], r"labelled\.train: evaluations \(knn\)"),
        (["evaluations=[knn]", "++evaluations.knn.k=[0]"], r"evaluations\.knn\.k: \[0\]"),
        (["evaluations=[knn]", "++evaluations.knn.layer=res9"], r"no layer 'res9'; did you mean"),
        (["evaluations=[knn]", "++labelled.transforms=[nothing]"], r"unknown transform 'nothing'"),
    ],
)
def test_mistakes(tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        evaluate_weights(evaluation(None, "++init=null", *overrides), tmp_path)


@pytest.mark.parametrize("recipe", ["knn", "linear"])
def test_recipes_take_the_model_and_the_images_from_the_run(run, tmp_path, recipe):
    folder, measured = run
    extra = ["++evaluations.linear.epochs=20"] if recipe == "linear" else ["labelled.batch_size=99"]
    words = [f"config=evaluate/{recipe}", f"init={folder}", f"hydra.run.dir={tmp_path}"]
    done = command(*words, "precision=fp32", "device=cpu", *extra, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    if recipe == "knn":
        assert results["knn.top1_k20_T0.1"] == measured["knn.top1_k20_T0.1"]
    else:
        assert results["linear.top1"] > 0.6
