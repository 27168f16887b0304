"""When something is saved, what stays, and what the last file holds."""

import concurrent.futures
import json
import math
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from training import records, small, trained

from vissl_lite import HOOKS, TRUNKS, ConfigError
from vissl_lite.config import IMAGENET_MEAN, Data, Labelled
from vissl_lite.engine import weights_file
from vissl_lite.engine.checkpoint import Checkpointer, load
from vissl_lite.engine.meters import Meters
from vissl_lite.engine.trainer import Trainer
from vissl_lite.errors import NonFiniteLoss, SaveFailed
from vissl_lite.hooks.base import Hook
from vissl_lite.plugins import load_entries

EPOCH = 10  # steps
load_entries()


class FakeTrainer(SimpleNamespace):
    """Counts steps and saves one number."""

    def __init__(self, folder, **options):
        model = nn.Module()
        model.trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        super().__init__(
            step=0,
            run_dir=folder,
            results={},
            notes=[],
            checkpointer=Checkpointer(folder / "checkpoints"),
            meters=Meters(torch.device("cpu")),
            model=model,
            device=torch.device("cpu"),
            loss=None,
            parts=SimpleNamespace(numerics=SimpleNamespace(precision="fp32")),
            config=SimpleNamespace(
                recipe="test",
                train=SimpleNamespace(clip_grad_norm=1.0),
                trunk={"name": "resnet", "depth": 18},
                evaluations={"knn": {}},
                data=Data(None),
                labelled=Labelled(),
            ),
        )
        self.journal = SimpleNamespace(
            note=lambda text, level: self.notes.append(text), log=self.notes.append
        )
        self.hook = HOOKS.build({"every_minutes": None, **options}, "hooks.checkpoint")

    def at_end_of(self, epochs, step=None):
        step = self.step if step is None else step
        return bool(epochs) and step % round(epochs * EPOCH) == 0

    def save(self, then):
        shared = {"step": self.step, "hook": self.hook.state_dict()}
        return self.checkpointer.save(self.step, self.model.state_dict(), shared, {}, then)

    def run(self, steps, knn=None):
        """`steps` steps; `knn` gives what is measured after some of them."""
        for _ in range(steps):
            self.step += 1
            if self.step in (knn or {}):
                self.results["knn.top1"] = knn[self.step]
            self.hook.after_step(self)

    def saved(self):
        return [int(path.name[-8:]) for path in self.checkpointer.complete()]

    def best(self):
        return int(self.checkpointer.best().name[-8:])


def trainer(folder, **options):
    made = FakeTrainer(folder, **options)
    made.hook.on_start(made)
    return made


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [10, 20]),
        ({"every_epochs": 0.5}, [5, 10, 15, 20, 25]),
        ({"every_epochs": 0, "every_steps": 8}, [8, 16, 24]),
        ({"every_steps": 8}, [8, 10, 16, 20, 24]),
        ({"every_epochs": 0}, []),
    ],
)
def test_saves_by_epochs_and_steps(tmp_path, options, expected):
    t = trainer(tmp_path, keep_last=100, **options)
    t.run(25)
    assert t.saved() == expected


def test_saves_by_time_and_starts_to_count_anew(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("vissl_lite.hooks.checkpoint.time.monotonic", lambda: clock.now)
    t = trainer(tmp_path, every_epochs=0, every_minutes=1.0, keep_last=100)
    for second in range(15, 300, 15):  # a log line and a step every 15 s
        clock.now = float(second)
        t.hook.on_log(t, {})
        t.run(1)
    assert t.saved() == [4, 8, 12, 16]


def test_keeps_the_last_ones(tmp_path):
    t = trainer(tmp_path, every_steps=1, keep_last=3)
    t.run(7)
    assert t.saved() == [5, 6, 7]


@pytest.mark.parametrize(
    ("mode", "values", "best"),
    [
        ("max", {3: 0.5, 6: 0.8, 9: 0.7, 12: 0.8}, 6),
        ("min", {3: 0.5, 6: 0.8, 9: 0.3, 12: 0.4}, 9),
        ("max", {3: 0.5, 6: math.nan}, 3),
    ],
)
def test_the_best_is_saved_at_once_and_stays(tmp_path, mode, values, best):
    t = trainer(tmp_path, best="knn.top1", best_mode=mode, keep_last=1)
    t.run(25, values)
    assert t.best() == best
    assert t.saved() == [best, 20]


def test_a_value_from_before_the_first_step_is_no_step_of_ours(tmp_path):
    t = FakeTrainer(tmp_path, best="knn.top1")
    t.results["knn.top1"] = 0.6  # evaluate: {at_start: true}
    t.hook.on_start(t)
    t.run(9, {5: 0.5})
    assert t.saved() == []
    t.run(1)
    t.run(5, {12: 0.7})
    assert t.best() == 12


def test_resumes_with_the_best_and_marks_it_if_the_kill_came_before_the_mark(tmp_path):
    first = trainer(tmp_path, best="knn.top1")
    first.run(7, {4: 0.5, 7: 0.9})
    (tmp_path / "checkpoints" / "best").unlink()
    second = FakeTrainer(tmp_path, best="knn.top1")
    state, _ = load(second.checkpointer.latest())
    second.step = state["step"]
    second.results["knn.top1"] = 0.9
    second.hook.load_state_dict(state["hook"])
    second.hook.on_start(second)
    assert second.best() == 7
    second.run(5, {9: 0.8})
    assert second.best() == 7
    assert second.saved() == [7, 10]


def test_a_misnamed_metric_is_said_once(tmp_path):
    t = trainer(tmp_path, best="knn.topp1", every_steps=1)
    t.run(3, {1: 0.5})
    assert t.notes == ["hooks.checkpoint.best: there is no 'knn.topp1'; did you mean 'knn.top1'?"]


@pytest.mark.parametrize("best", ["loss", "linear.top1", "knn"])
def test_a_metric_of_no_evaluation_is_refused(tmp_path, best):
    with pytest.raises(ConfigError, match=r"hooks\.checkpoint\.best: .* it has knn\.METRIC"):
        trainer(tmp_path, best=best)


@pytest.mark.parametrize("option", ["every_minutes", "every_steps", "keep_last"])
def test_nothing_below_one(option):
    with pytest.raises(ConfigError, match=rf"hooks\.checkpoint\.{option}: 0; needs"):
        HOOKS.build({option: 0}, "hooks.checkpoint")


def spoil_loss(t):
    t.meters.add({"loss": torch.tensor(math.nan)}, t.step)


def spoil_weight(t):
    with torch.no_grad():
        t.model.trunk[0].weight[0, 0, 0, 0] = math.inf


def spoil_statistics(t):
    t.model.trunk[1].running_var[0] = math.nan


@pytest.mark.parametrize("spoil", [spoil_loss, spoil_weight, spoil_statistics])
def test_what_is_not_finite_is_never_saved(tmp_path, spoil):
    t = trainer(tmp_path, every_steps=1)
    t.run(2)
    spoil(t)
    t.run(3)
    with pytest.raises(NonFiniteLoss, match=r"not finite; last good checkpoint: .*step-00000002;"):
        t.hook.on_end(t)
    assert t.saved() == [1, 2]
    assert not (tmp_path / "weights.safetensors").exists()


def test_a_weight_that_is_not_finite_ends_the_run_at_the_next_log_line(tmp_path):
    t = trainer(tmp_path, every_steps=2)
    t.run(3)
    spoil_statistics(t)  # the loss of a training does not see it
    t.hook.on_log(t, {"step": 3})
    t.run(1)
    with pytest.raises(NonFiniteLoss, match="a weight or a running statistic is not finite; last"):
        t.hook.on_log(t, {"step": 4})
    assert t.notes == [{"step": 4}]


def test_so_many_stay_for_good_even_after_a_resume(tmp_path):
    options = {"every_steps": 1, "keep_every_epochs": 0.5}
    t = trainer(tmp_path, **options)
    t.run(12)
    assert t.saved() == [5, 10, 11, 12]
    t.run(1)
    later = FakeTrainer(tmp_path, **options)
    later.step = 13
    later.hook.on_start(later)
    later.run(5)
    assert later.saved() == [5, 10, 15, 17, 18]


def test_one_that_stays_is_saved_though_nothing_else_is_due(tmp_path):
    t = trainer(tmp_path, every_epochs=0, keep_every_epochs=0.4)
    t.run(13)
    assert t.saved() == [4, 8, 12]


def test_the_end_is_saved_with_weights_that_the_trunk_takes(tmp_path):
    t = trainer(tmp_path)
    t.model.trunk = TRUNKS.build(t.config.trunk, "trunk")
    t.model.to(memory_format=torch.channels_last)
    t.run(13)
    t.hook.on_end(t)
    assert t.saved() == [10, 13]
    file = tmp_path / "weights.safetensors"
    fresh = TRUNKS.build(t.config.trunk, "trunk")
    fresh.load_state_dict(load_file(file))
    for name, value in t.model.trunk.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value)
    with safe_open(file, "pt") as opened:
        card = opened.metadata()
    assert (card["recipe"], card["step"]) == ("test", "13")
    trunk = json.loads(card["trunk"])
    assert trunk["depth"] == 18
    assert trunk["stem"] == "imagenet"  # defaults are in it, they may change
    assert (tuple(json.loads(card["mean"])), card["size"]) == (IMAGENET_MEAN, "224")
    assert not list(tmp_path.glob("*.tmp"))


def test_weights_on_a_full_disk_are_one_sentence_and_no_file(tmp_path, monkeypatch):
    t = trainer(tmp_path)
    t.model.trunk = TRUNKS.build(t.config.trunk, "trunk")
    file = tmp_path / "weights.safetensors"
    file.write_text("of before")
    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(SaveFailed, match=r"weights: .*safetensors could not .* No space left"):
        weights_file.write(t.model.trunk.state_dict(), file, {})
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["weights.safetensors"]
    assert file.read_text() == "of before"


def test_comes_after_all_other_hooks(tmp_path):
    hooks = Trainer(small("hooks=[checkpoint,nan_capture,diagnose]"), tmp_path).hooks
    assert list(hooks) == ["nan_capture", "diagnose", "checkpoint"]


class Crash(Hook):
    """Ends the training without warning."""

    def after_step(self, trainer):
        if trainer.step == 5:
            raise KeyboardInterrupt


def test_a_checkpoint_at_a_log_line_resumes_without_logging_it_again(tmp_path):
    overrides = (
        "hooks=[checkpoint]",
        "++hooks.checkpoint.every_steps=4",
        "++train.log_every=2",
        "++train.max_steps=8",
    )
    trained(small(*overrides), tmp_path / "whole")
    crashing = Trainer(small(*overrides), tmp_path / "crashed")
    crashing.hooks["crash"] = Crash()
    with pytest.raises(KeyboardInterrupt):
        crashing.fit()
    trained(small(*overrides, "++resume=true"), tmp_path / "crashed")
    whole, resumed = (
        [(r["step"], r["loss"]) for r in records(tmp_path / name)] for name in ("whole", "crashed")
    )
    assert [step for step, _ in whole] == [2, 4, 6, 8]
    assert resumed == whole


@pytest.mark.parametrize("background", [False, True])
def test_a_failed_save_costs_neither_the_next_one_nor_the_best(tmp_path, monkeypatch, background):
    """In the background a failure is heard of one save later; that one is written all the same."""
    t = trainer(tmp_path, every_epochs=0, best="knn.top1", background=background)
    t.run(1, knn={1: 0.5})
    t.checkpointer.wait()
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", no_space)
        patched.setattr("vissl_lite.engine.checkpoint.write", lambda *_: None)
        t.run(1, knn={2: 0.9})
        concurrent.futures.wait(filter(None, [t.checkpointer._pending]))
    t.run(2, knn={4: 0.6})
    t.hook.on_end(t)
    assert t.saved() == [1, 4]
    assert t.best() == 4
    assert sum("No space left on device" in note for note in t.notes) == 1


def no_space(descriptor):
    raise OSError(28, "No space left on device")


def with_a_best_that_failed(folder, monkeypatch, **options):
    """Step 1 is saved with 0.5, step 2 with 0.9 could not be."""
    t = trainer(folder, every_epochs=0, best="knn.top1", **options)
    t.run(1, knn={1: 0.5})
    with monkeypatch.context() as patched:
        patched.setattr("vissl_lite.engine.checkpoint.os.fsync", no_space)
        t.run(1, knn={2: 0.9})
    assert t.saved() == [1]
    return t


def test_a_best_that_failed_is_the_best_if_its_own_step_is_saved_after_all(tmp_path, monkeypatch):
    t = with_a_best_that_failed(tmp_path, monkeypatch)
    t.hook.on_end(t)
    assert t.saved() == [1, 2]
    assert t.best() == 2


def test_later_weights_are_not_marked_with_it_even_after_a_resume(tmp_path, monkeypatch):
    first = with_a_best_that_failed(tmp_path, monkeypatch, every_steps=3)
    first.run(2)
    assert first.saved() == [1, 3]
    second = FakeTrainer(tmp_path, every_epochs=0, best="knn.top1")
    state, _ = load(second.checkpointer.latest())
    second.step, second.results = state["step"], first.results
    second.hook.load_state_dict(state["hook"])
    second.hook.on_start(second)
    second.run(3)
    assert second.saved() == [1, 3]
    assert second.best() == 1
    second.run(1, knn={7: 0.7})
    assert second.best() == 7
