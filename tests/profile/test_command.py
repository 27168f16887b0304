"""The command: what it prints, writes and refuses."""

import json
from dataclasses import asdict, replace

import pytest

from vissl_lite.engine.journal import save_config
from vissl_lite.errors import ConfigError
from vissl_lite.overrides import compose
from vissl_lite.plugins import load_entries
from vissl_lite.profile.command import main

load_entries()


def test_the_command(tmp_path, capsys):
    file = tmp_path / "result.json"
    words = ["config=quickstart", "train.batch_size=8", "device=cpu", "precision=fp32"]
    words += ["memory.memory_format=contiguous", "steps=2", "warmup=1", f"json={file}"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("quickstart on 1 x cpu")
    result = json.loads(file.read_text())
    assert result["global_batch"] == 8
    assert result["images"] == "auto"
    assert not (tmp_path / "runs").exists()


def test_it_starts_processes_as_a_run_does(tmp_path, capfd):
    file = tmp_path / "result.json"
    words = ["config=quickstart", "train.batch_size=8", "device=cpu", "precision=fp32"]
    words += ["memory.memory_format=contiguous", "steps=1", "warmup=1", f"json={file}"]
    assert main([*words, "launch.processes=2"]) == 0
    assert capfd.readouterr().out.count("quickstart on 2 x cpu") == 1
    result = json.loads(file.read_text())
    assert (result["world_size"], result["local_batch"]) == (2, 4)
    assert result["strategy"] == "reference_ddp"
    assert result["times"]["communication"]["mean"] > 0


def test_the_config_of_a_run_is_measured_as_that_run(tmp_path):
    words = ["config=quickstart", "train.batch_size=8", "evaluations=[knn]"]
    recipe = compose(words)
    assert (recipe.recipe, list(recipe.evaluations)) == ("quickstart", ["knn"])
    save_config(asdict(recipe), tmp_path)
    again = compose([f"config={tmp_path / 'config.yaml'}", "train.epochs=2"])
    assert again == replace(recipe, train=replace(recipe.train, epochs=2))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["steps=3"], "no recipe given"),
        (["config=quickstarts"], "did you mean 'quickstart'"),
        (["config=quickstart", "train.batchsize=8"], "did you mean 'batch_size'"),
        (["config=quickstart", "step=3"], "did you mean 'steps'"),
        (["config=quickstart", "steps=-1"], "at least 1"),
        (["config=quickstart", "launch.processes=0"], "launch.processes: 0; needs 1 or more"),
    ],
)
def test_what_is_wrong_is_said(words, message):
    with pytest.raises(ConfigError, match=message):
        main(words)


def test_usage(capsys):
    assert main(["config=quickstart", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: vissl-lite bench step config=RECIPE")
