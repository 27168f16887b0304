import json
import os
import signal
import time
from pathlib import Path
from unittest.mock import patch

import pytest
import torch.distributed as dist
from distributed import run_ranks
from training import records, small, trained

from vissl_lite import EVALUATIONS, HOOKS, ConfigError
from vissl_lite.engine.trainer import Trainer
from vissl_lite.errors import NonFiniteLoss
from vissl_lite.hooks.base import Hook
from vissl_lite.hooks.evaluate import _command
from vissl_lite.parallel import failure
from vissl_lite.parallel.collectives import rank

LABELLED = (
    "++labelled={train: {name: digits}, test: {name: digits, split: test}, size: 16,"
    " transforms: [{name: resize, short_side: 16}]}"
)
EPOCHS_OF_ONE_STEP = ("data/source=synthetic", "++data.source.n=16", "++data.source.size=16")


class Ones:
    """An evaluation that looks at nothing and takes its time.

    Args:
        seconds: of sleep.
    """

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds

    def evaluate(self, bench):
        time.sleep(self.seconds)
        return {"one": 1.0}


@pytest.fixture(autouse=True)
def ones(monkeypatch):
    monkeypatch.setitem(EVALUATIONS._entries, "ones", Ones)


def evaluated_steps(tmp_path, *overrides):
    config = small(LABELLED, "hooks=[evaluate]", "++evaluations.ones={}", *overrides)
    trained(config, tmp_path)
    return [record["step"] for record in records(tmp_path, "eval")]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("{every_epochs: 10}", [10, 20, 25]),  # VISSL: after epochs 1, 11, 21
        ("{every_epochs: 10, at_end: false}", [10, 20]),
        ("{every_epochs: 5}", [5, 10, 15, 20, 25]),
        ("{every_epochs: 0}", [25]),
        ("{every_epochs: 0, at_start: true}", [0, 25]),
    ],
)
def test_cadence(tmp_path, settings, expected):
    overrides = (*EPOCHS_OF_ONE_STEP, "++train.epochs=25", f"++hooks.evaluate={settings}")
    assert evaluated_steps(tmp_path, *overrides) == expected


def test_a_fraction_of_an_epoch(tmp_path):
    four_steps = (*EPOCHS_OF_ONE_STEP, "++data.source.n=64", "++train.epochs=2")
    half = "++hooks.evaluate={every_epochs: 0.5}"
    assert evaluated_steps(tmp_path, *four_steps, half) == [2, 4, 6, 8]


def test_a_run_cut_short_is_evaluated_at_its_last_step(tmp_path):
    assert evaluated_steps(tmp_path, "++train.max_steps=3") == [3]


def test_results_and_records(tmp_path):
    overrides = (LABELLED, "hooks=[evaluate]", "evaluations=[knn]", "++train.max_steps=1")
    trainer = trained(small(*overrides), tmp_path)
    [record] = records(tmp_path, "eval")
    assert (record["name"], record["step"]) == ("knn", 1)
    assert trainer.results["knn.top1"] == record["top1"] > 0.2


def test_without_evaluations_nothing_is_needed(tmp_path):
    trained(small("hooks=[evaluate]", "++train.max_steps=1"), tmp_path)
    assert records(tmp_path, "eval") == []


def test_missing_images_are_told_before_the_first_step(tmp_path):
    trainer = Trainer(small("hooks=[evaluate]", "evaluations=[knn]"), tmp_path)
    with pytest.raises(ConfigError, match=r"labelled\.train: evaluations \(knn\) need labelled"):
        trainer.fit()
    assert trainer.step == 0


def test_a_negative_period_is_an_error():
    with pytest.raises(ConfigError, match=r"hooks\.evaluate\.every_epochs: -1; needs 0 or more"):
        HOOKS.build({"every_epochs": -1}, "hooks.evaluate")


class Terminate(Hook):
    """Sends SIGTERM to this process after step `at`."""

    def __init__(self, at):
        self.at = at

    def after_step(self, trainer):
        if trainer.step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


def terminated(run_dir, at):
    """Steps evaluated by a run of one-step epochs that is sent SIGTERM (at None: is not)."""
    hooks = ("hooks=[evaluate]", "++evaluations.ones={}", "++train.log_every=4")
    config = small(LABELLED, *EPOCHS_OF_ONE_STEP, "++train.epochs=6", *hooks)
    trainer = Trainer(config, run_dir)
    trainer.hooks = {"terminate": Terminate(at), **trainer.hooks}
    evaluated = []
    trainer.log_evaluation = lambda name, metrics: evaluated.append(trainer.step)
    trainer.fit()
    return evaluated


@pytest.mark.parametrize("at", [3, 6])
def test_no_evaluation_after_sigterm(tmp_path, at):
    assert terminated(tmp_path, at) == list(range(1, at))


def terminated_on_rank(rank, world, run_dir):
    EVALUATIONS._entries["ones"] = Ones
    return terminated(Path(run_dir), 3 if rank == 1 else None)


def test_processes_agree_when_one_gets_sigterm(tmp_path):
    assert run_ranks(terminated_on_rank, 2, str(tmp_path)) == [[1, 2], [1, 2]]


def test_a_setting_that_does_not_fit_is_told_before_the_first_step(tmp_path):
    overrides = (LABELLED, "hooks=[evaluate]", "evaluations=[knn]", "++evaluations.knn.layer=res9")
    with pytest.raises(ConfigError, match="has no layer 'res9'; did you mean 'res5'"):
        trained(small(*overrides), tmp_path)
    assert not records(tmp_path)


class Fails:
    """An evaluation that fails.

    Args:
        error: how.
    """

    def __init__(self, error: str = "ConfigError"):
        self.error = {"ConfigError": ConfigError, "NonFiniteLoss": NonFiniteLoss}[error]

    def evaluate(self, bench):
        raise self.error("fails.lr: too large")


FAILS = (LABELLED, "hooks=[checkpoint,evaluate]", "++train.max_steps=1")
FAILS += ("++evaluations={fails: {}, ones: {}}",)


@pytest.mark.parametrize("error", ["ConfigError", "NonFiniteLoss"])
def test_a_failure_after_the_first_step_costs_neither_training_nor_the_others(
    tmp_path, monkeypatch, error
):
    monkeypatch.setitem(EVALUATIONS._entries, "fails", Fails)
    trainer = trained(small(*FAILS, f"++evaluations.fails.error={error}"), tmp_path)
    assert [record["name"] for record in records(tmp_path, "eval")] == ["ones"]
    assert (tmp_path / "checkpoints" / "step-00000001" / "meta.json").is_file()
    assert trainer.exit_code == 0
    told = [record for record in records(tmp_path, "note") if record["level"] == "warning"]
    assert [record["text"] for record in told] == 2 * [
        "evaluation fails of step 1 failed and is left out: fails.lr: too large; to run it again"
        " (give its settings anew): vissl-lite config=evaluate/suite 'evaluations=[fails]'"
        f" init={tmp_path}"
    ]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines[-2:]] == ["end", "note"]


class FailsOnOne:
    """An evaluation that fails on rank 1 after its last collective."""

    def evaluate(self, bench):
        if rank() == 1:
            raise ConfigError("fails.k: too large\nfor this process")
        return {"one": 1.0}


def failing_on_rank_1(rank, world, folder):
    """What the run logs of its evaluations, and their warnings."""
    store = dist.FileStore(f"{folder}/store", world)
    with (
        patch.dict(EVALUATIONS._entries, fails=FailsOnOne, ones=Ones),
        patch.object(failure, "launched_world_size", lambda: world),
        patch.object(failure, "attempt_store", lambda: store),
    ):
        trained(small(*FAILS), Path(folder))
    notes = [r["text"] for r in records(Path(folder), "note") if r["level"] == "warning"]
    return [r["name"] for r in records(Path(folder), "eval")], notes


def test_the_failure_of_one_process_costs_no_more(tmp_path):
    for names, notes in run_ranks(failing_on_rank_1, 2, str(tmp_path)):
        assert names == ["ones"]
        assert (
            "evaluation fails of step 1 failed and is left out: fails.k: too large; for" in notes[0]
        )


def test_a_failure_before_the_first_step_stops(tmp_path, monkeypatch):
    monkeypatch.setitem(EVALUATIONS._entries, "fails", Fails)
    with pytest.raises(ConfigError, match="too large"):
        trained(small(*FAILS, "++hooks.evaluate.at_start=true"), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_the_command_that_runs_an_evaluation_again():
    assert _command("detection") == "config=evaluate/detection"


def test_training_is_not_changed(tmp_path):
    overrides = (*EPOCHS_OF_ONE_STEP, "++train.epochs=4")
    hook = (LABELLED, "hooks=[evaluate]", "evaluations=[knn]", "++hooks.evaluate.at_start=true")
    trained(small(*overrides), tmp_path / "without")
    trained(small(*overrides, *hook), tmp_path / "with")
    assert len(records(tmp_path / "with", "eval")) == 5
    losses = [[r["loss"] for r in records(tmp_path / name)] for name in ("without", "with")]
    assert losses[0] == losses[1]


def test_speed_is_that_of_training(tmp_path):
    slow = "++evaluations.ones.seconds=0.8"
    evaluated_steps(tmp_path, *EPOCHS_OF_ONE_STEP, "++train.epochs=3", slow)
    later = [record["images_per_s"] for record in records(tmp_path)[1:]]
    assert min(later) > 16 / 0.8
