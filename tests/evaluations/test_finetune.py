"""finetune: trainings inside an evaluation, from the right weights, stopped and resumed."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from distributed import run_ranks
from evaluations.stopped import Stopped, stop_after
from sklearn.linear_model import LogisticRegression
from training import records, small, trained

from vissl_lite import ConfigError
from vissl_lite.engine.bench import Bench, labelled_sources
from vissl_lite.engine.build import build_model
from vissl_lite.engine.numerics import Numerics
from vissl_lite.engine.trainer import Trainer
from vissl_lite.engine.weights import load_into
from vissl_lite.errors import NonFiniteLoss
from vissl_lite.evaluations import finetune
from vissl_lite.evaluations._finetune import Overseer, _prepare, write_weights
from vissl_lite.evaluations._finetune_config import start_from, training
from vissl_lite.evaluations.accuracy import Accuracy
from vissl_lite.evaluations.finetune import Finetune
from vissl_lite.sources.subset import Subset

LABELLED = (
    "++labelled={train: {name: digits}, test: {name: digits, split: test}, size: 8, transforms: []}"
)
CPU, FP32 = torch.device("cpu"), Numerics("fp32", "contiguous", "")
ADAMW = {"name": "adamw", "lr": 4e-3}
SHORT = {"epochs": 3, "optimizer": ADAMW, "schedule": "cosine", "transforms": []}


def bench_of(folder, *overrides, **settings):
    """Of an untrained model, with the notes that it was given."""
    config = small(LABELLED, *overrides)
    torch.manual_seed(0)
    model, notes = build_model(config, 10), []
    sources = labelled_sources(config)
    bench = Bench(
        model,
        config.labelled,
        sources,
        device=CPU,
        numerics=FP32,
        config=config,
        folder=folder,
        note=notes.append,
        **settings,
    )
    bench.notes = notes
    return bench


def prepared(bench, settings, share=1.0):
    """The config of one training and the digest of its weights, which lie where it reads them."""
    source = {"name": "subset", "source": bench.config.labelled.train, "share": share}
    folder = bench.files("finetune")
    config = start_from(folder / "pretrained.safetensors", settings.head, bench.config, bench)
    weights = write_weights(bench, config)
    return training(config, settings, share, source, 64, 1.0), weights


def test_beats_a_probe_and_a_random_start(tmp_path):
    bench = bench_of(tmp_path)
    before = torch.get_rng_state()
    full = Finetune(shares=(1.0,), batch_size=64, **SHORT).evaluate(bench)
    assert torch.equal(torch.get_rng_state(), before)
    train, test = (bench.features(split) for split in ("train", "test"))
    probe = LogisticRegression(max_iter=500).fit(train.features["res5"], train.label_N)
    assert full["top1"] > probe.score(test.features["res5"], test.label_N) + 0.05
    assert full["top1"] == full["top1_100pct"] > 0.8
    assert not (tmp_path / "evaluations/finetune/100pct/subset.txt").exists()

    few = Finetune(shares=(0.05, 0.01), batch_size=16, **SHORT)
    random = few.evaluate(bench)
    load_into(bench.model, tmp_path / "evaluations/finetune/100pct/weights.safetensors")
    found = few.evaluate(bench)  # other weights: everything anew
    assert found["top1_5pct"] > random["top1_5pct"] + 0.3
    assert list(found) == ["top1", "top5", "top1_5pct", "top5_5pct", "top1_1pct", "top5_1pct"]
    names = (tmp_path / "evaluations/finetune/5pct/subset.txt").read_text().splitlines()
    assert names == list(Subset("digits", share=0.05).names())


def test_rates_of_layers_reach_the_optimizer(tmp_path):
    settings = Finetune(layer_decay=0.5, head_lr_scale=20.0)
    config, _ = prepared(bench_of(tmp_path), settings)
    trainer = Trainer(config, tmp_path / "inner")
    trainer.parts.schedules.apply(0)
    lr = {n: g["lr"] for g in trainer.optimizer.param_groups for n in g["names"]}
    peak, units = 0.0125 * 64 / 256, len(trainer.model.trunk.units())
    assert lr["trunk.conv1.weight"] == pytest.approx(peak * 0.5**units)
    assert lr["trunk.layer4.1.conv2.weight"] == pytest.approx(peak * 0.5)
    assert lr["heads.0.weight"] == lr["heads.0.bias"] == pytest.approx(20 * peak)
    trainer.parts.schedules.apply(round(30 / 35 * trainer.parts.total_steps))
    groups = trainer.optimizer.param_groups
    assert max(g["lr"] for g in groups) == pytest.approx(2 * peak)
    assert {g["weight_decay"] for g in groups} == {1e-4}


@pytest.mark.parametrize(("share", "expected"), [(1.0, (35, 0.0125, 1e-4)), (0.1, (70, 0.05, 0))])
def test_the_defaults_are_seers(tmp_path, share, expected):
    config, _ = prepared(bench_of(tmp_path), Finetune(), share)
    optimizer = config.optimizer
    assert (config.train.epochs, optimizer["lr"], optimizer["weight_decay"]) == expected
    assert config.schedules["lr"]["milestones"] == [30 / expected[0]]
    assert config.data.views[0].transforms == ["random_resized_crop", "random_horizontal_flip"]
    assert (config.data.views[0].size, config.data.mean) == (8, (0.485, 0.456, 0.406))


def test_the_first_layer_of_the_head_is_kept(tmp_path):
    bench = bench_of(tmp_path)
    config, _ = prepared(bench, Finetune(head="first_layer"))
    trainer = Trainer(config, tmp_path / "inner")
    first, given = trainer.model.heads[0].state_dict(), bench.model.heads[0].state_dict()
    assert list(first) == list(given)[: len(first)]
    assert all(torch.equal(first[name], given[name]) for name in first)
    assert trainer.model.heads[0].out_dim == 32
    told = "init: 7 head tensors, heads.0 is the beginning of the file's, heads.1 starts from"
    assert any(note.startswith(told) for note in trainer.parts.notes)
    assert any(
        key.startswith("heads.0") for g in trainer.optimizer.param_groups for key in g["names"]
    )


@pytest.mark.parametrize("heads", ["[]", "[linear]", "[{name: mlp, hidden: []}]"])
def test_no_first_layer(tmp_path, heads):
    bench = bench_of(tmp_path, f"++heads={heads}")
    with pytest.raises(ConfigError, match=r"finetune\.head: first_layer needs a run whose first"):
        Finetune(head="first_layer").evaluate(bench)


def terminate_at(step, monkeypatch):
    """Sends SIGTERM once, after `step` steps of a training inside an evaluation."""
    sent, real = [], Overseer.after_step

    def after_step(self, trainer):
        if trainer.step == step and not sent:
            sent.append(step)
            os.kill(os.getpid(), signal.SIGTERM)
        real(self, trainer)

    monkeypatch.setattr(Overseer, "after_step", after_step)


STOPPED = Finetune(shares=(0.1,), batch_size=32, **SHORT)


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    return STOPPED.evaluate(bench_of(tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize("by", ["stop point", "signal"])
def test_goes_on_where_it_was_stopped(tmp_path, monkeypatch, by, never_stopped):
    """12 steps, stopped after 6."""
    stop_point = stop_after(5) if by == "stop point" else lambda: None
    if by == "signal":
        terminate_at(6, monkeypatch)
    with pytest.raises((Stopped, SystemExit)) as stopped:
        STOPPED.evaluate(bench_of(tmp_path, stop_point=stop_point))
    assert getattr(stopped.value, "code", 143) == 143
    again = bench_of(tmp_path)
    assert STOPPED.evaluate(again) == never_stopped
    assert "goes on after 6 of 12 steps" in again.notes[0]
    inner = records(tmp_path / "evaluations/finetune/10pct")
    assert [record["step"] for record in inner] == list(range(1, 13))


def test_begins_anew_with_another_number_of_images(tmp_path):
    """It would stop with a sentence about a run, and there is nothing that a user could mend."""
    config, folder = small(), tmp_path / "5pct"
    for share, stays in ((0.05, False), (0.05, True), (0.1, False)):
        _prepare(config, folder, "digest", Subset("digits", share=share))
        assert (folder / "checkpoints").is_dir() is stays
        (folder / "checkpoints").mkdir(exist_ok=True)


def test_a_signal_reaches_the_training_around_it(tmp_path, monkeypatch):
    terminate_at(2, monkeypatch)
    monkeypatch.setattr("vissl_lite.evaluations._finetune.TOLD_EVERY", 0.0)
    finetune = "++evaluations.finetune={shares: [0.1], batch_size: 32, epochs: 2}"
    config = small(LABELLED, "hooks=[evaluate]", finetune, "++train.max_steps=1")
    trainer = trained(config, tmp_path)
    assert trainer.stop.received == signal.SIGTERM
    assert records(tmp_path, "eval") == []
    told = [record["text"] for record in records(tmp_path, "note")]
    assert f"evaluation stopped by SIGTERM; go on with: vissl-lite resume={tmp_path}" in told
    assert any(text.startswith("finetune 10pct: epoch 0.2 of 2, loss 2.") for text in told)


def test_the_learning_rate_is_chosen_on_held_out_images(tmp_path, monkeypatch):
    seen, top1 = [], iter([0.3, 0.6, 0.6, 0.9])

    def nothing(config, folder, weights, images, bench):
        seen.append((folder.name, config.optimizer["lr"], set(images.names())))
        return Trainer(replace(config, resume=False), folder)

    def accuracy(self, bench):
        judged = {sample.name for sample in bench.sources["test"]}
        seen[-1] = (*seen[-1], judged)
        return {"top1": next(top1)}

    monkeypatch.setattr("vissl_lite.evaluations.finetune.train", nothing)
    monkeypatch.setattr(Accuracy, "evaluate", accuracy)
    settings = Finetune(shares=(0.2,), lr_factors=(0.1, 1.0, 10.0), batch_size=64)
    bench = bench_of(tmp_path)
    assert settings.evaluate(bench)["top1_20pct"] == 0.9
    names, rates, fitted, judged = zip(*seen)
    assert names == ("20pct_lr_x0.1", "20pct_lr_x1", "20pct_lr_x10", "20pct")
    assert rates == pytest.approx((0.005, 0.05, 0.5, 0.05))
    share = set(Subset("digits", share=0.2).names())
    for one, other in zip(fitted[:3], judged[:3]):
        assert (one | other, one & other) == (share, set())
        assert len(other) == pytest.approx(0.1 * len(share), abs=5)
    assert fitted[3] == share
    assert all(name.startswith("digits/test/") for name in judged[3])
    assert "x 1 chosen by top1" in bench.notes[-1]


def test_a_rate_with_which_the_loss_does_not_stay_finite_is_not_chosen(tmp_path, monkeypatch):
    def diverges(config, folder, weights, images, bench):
        if config.optimizer["lr"] > 0.01:
            raise NonFiniteLoss("the loss is not finite")
        return Trainer(replace(config, resume=False), folder)

    monkeypatch.setattr("vissl_lite.evaluations.finetune.train", diverges)
    monkeypatch.setattr(Accuracy, "evaluate", lambda self, bench: {"top1": 0.5})
    bench = bench_of(tmp_path)
    settings = Finetune(shares=(0.2,), lr_factors=(10.0, 0.1), batch_size=64)
    assert settings.evaluate(bench)["top1_20pct"] == 0.5
    assert "x 0.1 chosen by top1" in bench.notes[-1]
    assert "x 10: -inf" in bench.notes[-1]


def on_two(rank, world, folder):
    return Finetune(shares=(0.1,), batch_size=32, epochs=1, transforms=[]).evaluate(
        bench_of(Path(folder))
    )


def test_two_processes(tmp_path):
    """Both say the same, and what one process says of the weights that they trained."""
    one, other = run_ranks(on_two, 2, str(tmp_path))
    assert one == other
    inner = tmp_path / "evaluations/finetune/10pct"
    assert (inner / "subset.txt").read_text().split() == list(Subset("digits", share=0.1).names())
    bench = bench_of(tmp_path, "++heads=[{name: linear, out_dim: 10}]")
    load_into(bench.model, inner)
    alone = Accuracy().evaluate(bench)
    assert one == {**alone, **{f"{name}_10pct": value for name, value in alone.items()}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shares": ()}, r"shares: is empty; needs numbers above 0 and at most 1"),
        ({"shares": (0.1, 1.5)}, r"shares: 0\.1, 1\.5; needs numbers above 0 and at most 1"),
        ({"lr_factors": (0.0,)}, r"lr_factors: 0; needs numbers above 0"),
        ({"held_out": 1.0}, r"held_out: 1; needs numbers above 0 and at most 0\.9"),
        ({"epochs": 0}, r"epochs: 0; needs numbers above 0"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ConfigError, match=rf"evaluations\.finetune\.{message}"):
        Finetune(**settings)


def test_a_share_that_is_too_small_is_told_before_any_training(tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "world_size", lambda: 64)
    with pytest.raises(ConfigError, match=r"shares: 1pct are 10 images for 64 processes"):
        Finetune().evaluate(bench_of(tmp_path))
    assert not (tmp_path / "evaluations").exists()


def test_without_a_run(tmp_path):
    bench = bench_of(None)
    with pytest.raises(ConfigError, match="trains in the folder of a run"):
        Finetune().evaluate(bench)
