"""The command as a user types it: a table, what is skipped, runs in progress, mistakes."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from command import command
from distributed import run_ranks
from sklearn.neighbors import KNeighborsClassifier
from suite.some_runs import make_run

from vissl_lite import EVALUATIONS, ConfigError
from vissl_lite.errors import NonFiniteLoss
from vissl_lite.plugins import load_entries
from vissl_lite.sources.digits import Digits
from vissl_lite.suite import command as suite
from vissl_lite.suite import run as suite_run
from vissl_lite.suite.results import settings_of
from vissl_lite.suite.subjects import Subject

KNN = ["evaluations=[knn]", "evaluations.knn.k=[1]", "device=cpu"]
DONE = '{"kind": "end", "step": 3}\n'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 3 steps, each with a checkpoint, and its model."""
    folder = tmp_path_factory.mktemp("runs") / "some"
    return folder, make_run(folder)


@pytest.fixture
def copied(run, tmp_path):
    """A copy of the run that may be changed."""
    return Path(shutil.copytree(run[0], tmp_path / "copied"))


def lines_of(out):
    with (out / "suite.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def values(out):
    """(label, step) -> the main metric."""
    lines = [line for line in lines_of(out) if line["main"] == "1"]
    return {(line["weights"], line["step"]): float(line["value"]) for line in lines}


def nearest_neighbour(model):
    """Accuracy of scikit-learn's 1-NN on the digits."""
    features = []
    for digits in (Digits("train"), Digits("test")):
        images_BHWC = torch.from_numpy(digits.images())[..., None].expand(-1, -1, -1, 3)
        with torch.no_grad():
            found = model.eval().layer_features(images_BHWC, [model.layer])[model.layer]
        features.append((found.numpy(), digits.labels_N))
    return KNeighborsClassifier(1, metric="cosine").fit(*features[0]).score(*features[1])


def test_one_table_and_nothing_twice(run, tmp_path):
    folder, model = run
    out = tmp_path / "out"
    words = ["benchmark_suite", f"u=untrained:{folder}", f"a={folder}", "--every-checkpoint"]
    words += [*KNN[1:], "evaluations=[knn,multilabel]", f"--out={out}"]
    first = command(*words, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    found = values(out)
    assert list(found) == [("u", "0"), ("a", "1"), ("a", "2"), ("a", "3")]
    assert found["a", "3"] == pytest.approx(nearest_neighbour(model), abs=1e-9)
    assert len({found["u", "0"], found["a", "1"], found["a", "3"]}) == 3
    assert f"{found['a', '3']:.4f}" in first.stdout
    assert "(a) labelled.train: has no readable image with tags" in first.stdout
    times = {file: file.stat().st_mtime_ns for file in (out / "results").glob("knn-*")}
    again = command(*words, cwd=tmp_path)
    assert again.stdout.count("knn done before") == 4
    assert {file: file.stat().st_mtime_ns for file in times} == times
    assert values(out) == found
    assert '<table class="suite">' in (out / "suite.html").read_text()


def test_a_loss_that_is_not_finite_is_a_problem_of_its_cell(run, tmp_path, monkeypatch):
    load_entries()

    def diverges(self, bench):
        raise NonFiniteLoss("linear: the loss is nan")

    monkeypatch.setattr(EVALUATIONS._entries["linear"], "evaluate", diverges)
    words = ["benchmark_suite", f"a={run[0]}", f"b=untrained:{run[0]}", "--out=out"]
    words += ["evaluations=[linear,knn]", *KNN[1:]]
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "a, step 3: linear is not possible: linear: the loss is nan" in done.stdout
    assert "(a) linear: the loss is nan" in done.stdout
    assert set(values(tmp_path / "out")) == {("a", "3"), ("b", "0")}


def test_a_layer_that_only_some_networks_have(run, tmp_path):
    """Is a result of the others, and said of all if none has it."""
    load_entries()
    subject = Subject("a", str(run[0]), None)
    config = suite_run.config_of(subject, [*KNN, "evaluations.knn.layer=res5"])
    vit = {"name": "vit", "size": "tiny", "image_size": 16}
    jobs = [
        suite_run.Job(subject, c, {"knn": settings_of(c, "knn")}, {})
        for c in (config, replace(config, trunk=vit, heads=[], layer=None))
    ]
    suite_run.check_fits(jobs, tmp_path)
    with pytest.raises(ConfigError, match="has no layer 'res5'"):
        suite_run.check_fits(jobs[1:], tmp_path)


def test_killed_and_started_again(run, tmp_path, monkeypatch):
    words = ["benchmark_suite", f"u=untrained:{run[0]}", str(run[0]), *KNN, "--out=out"]
    load, loaded = suite_run.load_model, []

    def killed(config, *others):
        loaded.append(config.init)
        if len(loaded) == 2:
            raise KeyboardInterrupt
        return load(config, *others)

    monkeypatch.setattr(suite_run, "load_model", killed)
    assert command(*words, cwd=tmp_path).returncode == 130
    assert list(values(tmp_path / "out")) == [("u", "0")]
    words[1:3] = [words[2], words[1]]
    assert command(*words, cwd=tmp_path).returncode == 0
    assert loaded[1:] == [str(run[0] / "checkpoints" / "step-00000003")] * 2
    assert [step for _, step in values(tmp_path / "out")] == ["3", "0"]  # in the command's order


def test_a_checkpoint_pruned_before_it_is_read_does_no_harm(copied, tmp_path, monkeypatch):
    load = suite_run.load_model

    def pruned(config, *others):
        if config.init.endswith("1"):
            (Path(config.init) / "meta.json").unlink()
            shutil.rmtree(config.init)
        return load(config, *others)

    monkeypatch.setattr(suite_run, "load_model", pruned)
    words = ["benchmark_suite", f"a={copied}", "--every-checkpoint", *KNN, "--out=out"]
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "a, step 1: its run has removed it meanwhile" in done.stdout
    assert list(values(tmp_path / "out")) == [("a", "2"), ("a", "3")]


def test_damage_is_an_error(copied, tmp_path):
    [shard] = (copied / "checkpoints" / "step-00000003").glob("*.safetensors")
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    done = command("benchmark_suite", f"a={copied}", *KNN, cwd=tmp_path)
    assert done.returncode == 2
    assert "step-00000003" in done.stderr


def test_watches_until_the_run_has_ended(copied, tmp_path, monkeypatch):
    """The second checkpoint comes while it waits, the first goes; then the run ends."""
    checkpoints, records = copied / "checkpoints", copied / "metrics.jsonl"
    start = [line for line in records.read_text().splitlines() if '"kind": "start"' in line]
    records.write_text(start[0] + "\n")
    for step in (2, 3):
        (checkpoints / f"step-0000000{step}").rename(checkpoints / f"step-0000000{step}.tmp")
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 1:
            (checkpoints / "step-00000002.tmp").rename(checkpoints / "step-00000002")
            shutil.rmtree(checkpoints / "step-00000001")
        elif len(slept) == 2:
            with records.open("a") as file:
                file.write(DONE)

    monkeypatch.setattr(suite.time, "sleep", sleep)
    words = ["benchmark_suite", f"a={copied}", *KNN, "--out=out"]
    done = command(*words, "--watch", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert slept == [suite.POLL_S] * 2
    assert list(values(tmp_path / "out")) == [("a", "1"), ("a", "2")]
    assert command(*words, "--every-checkpoint", cwd=tmp_path).stdout.count("done before") == 1
    assert list(values(tmp_path / "out")) == [("a", "1"), ("a", "2")]  # 1 is remembered


def suite_on_rank(rank, world, words):
    torch.set_num_threads(1)
    load_entries()
    options, settings = suite._parsed(words)
    found = suite.Suite(options, settings)
    found.run()
    return {key: result.metrics for key, result in found.results.items()}


@pytest.mark.slow
def test_the_same_on_two_processes(run, tmp_path):
    words = [f"a={run[0]}", *KNN, f"--out={tmp_path / 'out'}"]
    first, second = run_ranks(suite_on_rank, 2, words)
    assert first == second
    assert values(tmp_path / "out")["a", "3"] == pytest.approx(nearest_neighbour(run[1]), abs=0.003)
    assert len(list((tmp_path / "out" / "results").iterdir())) == 1


def test_a_file_that_belongs_to_no_run(run, tmp_path):
    file = tmp_path / "trunk.pth"
    torch.save(run[1].trunk.state_dict(), file)
    done = command("benchmark_suite", str(file), *KNN, cwd=tmp_path)
    assert done.returncode == 2
    assert "set labelled.train and labelled.test to sources with labels" in done.stderr
    labelled = ["labelled.train=digits", "labelled.test={name: digits, split: test}"]
    labelled += ["labelled.size=8", "labelled.transforms=[]"]
    data = yaml.safe_load((run[0] / "config.yaml").read_text())["data"]
    labelled += [f"data.{key}={list(data[key])}" for key in ("mean", "std")]
    done = command("benchmark_suite", str(file), *KNN, *labelled, "--out=out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    [((label, step), value)] = values(tmp_path / "out").items()
    assert (label, step) == ("trunk.pth", "")
    assert value == pytest.approx(nearest_neighbour(run[1]), abs=1e-9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluations=[knn]"], "no weights; name runs, checkpoints or files"),
        (["{run}", "init=x"], "without init="),
        (["{run}", "evaluations=[]"], "evaluations: none given"),
        (["{run}", "evaluations=[knnn]"], "evaluations: unknown 'knnn'; did you mean 'knn'"),
        (["{run}", "evaluations.knn.k=[0]", "evaluations=[knn]"], "evaluations.knn.k: [0]"),
        (["{run}", *KNN, "evaluations.knn.layer=res9"], "has no layer 'res9'; did you mean 'res5'"),
        (["{run}/nothing"], "is no run, no checkpoint, no file"),
        (["{run}", "--wach"], "unrecognized arguments: --wach"),
        (["{run}", "=3"], "'=3' sets nothing: a key is missing before ="),
        (["{run}", *KNN, "--out={run}/config.yaml"], "config.yaml cannot be made (File exists)"),
    ],
)
def test_mistakes(run, tmp_path, words, message):
    words = [word.replace("{run}", str(run[0])) for word in words]
    done = command("benchmark_suite", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()
