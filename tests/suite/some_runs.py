"""A small run with checkpoints, and results that nobody has computed."""

from dataclasses import asdict

from training import small, trained

from vissl_lite.engine.journal import save_config
from vissl_lite.suite.results import Result

DIGITS = "{train: {name: digits}, test: {name: digits, split: test}, size: 8, transforms: []}"


def make_run(folder, *overrides):
    """A run of 3 steps with a checkpoint after each; gives its model at the end."""
    words = ["++train.max_steps=3", "hooks=[checkpoint]", "++hooks.checkpoint.every_steps=1"]
    words += ["++hooks.checkpoint.keep_last=9", f"++labelled={DIGITS}"]
    config = small(*words, *overrides)
    save_config(asdict(config), folder)
    return trained(config, folder).model


def result(evaluation="knn", label="a", step=1, metrics=None, problem=None, **given):
    settings = {"evaluation": {"name": evaluation}, "labelled": {}, "precision": "fp32"}
    identity = {"checkpoint": f"{label}/{step}", "run": "r"}
    usual = {"identity": identity, "settings": settings, "run": label, "epoch": None}
    found = {"top1": 0.5} if metrics is None and not problem else metrics or {}
    return Result(evaluation, label, step=step, metrics=found, problem=problem, **usual | given)
