"""The commands as a user types them: runs, files, kill -9, mistakes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from command import command
from PIL import Image
from training import small, trained

from vissl_lite import ConfigError
from vissl_lite.engine.journal import save_config
from vissl_lite.extract.command import main, nearest_main
from vissl_lite.extract.subject import Subject
from vissl_lite.sources.digits import Digits

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one step, whose last head gives logits."""
    folder = tmp_path_factory.mktemp("run")
    heads = "++heads=[{name: mlp, hidden: [32], out_dim: 16}, linear]"
    size = "++labelled={size: 16, transforms: [{name: resize, short_side: 16}]}"
    config = small("++train.max_steps=1", "hooks=[checkpoint]", "loss=cross_entropy", heads, size)
    save_config(asdict(config), folder)
    return folder, trained(config, folder).model


def test_a_run_brings_its_heads_and_how_it_sees(run, tmp_path):
    words = [str(run[0]), "digits", "split=test", "--out", str(tmp_path / "out")]
    words += ["--layer=embedding", "--layer=logits", "--layer=res5"]
    assert main([*words, "--device=cpu"]) == 0
    meta = json.loads((tmp_path / "out" / "features.json").read_text())
    assert meta["layers"] == {"embedding": 16, "logits": 10, "res5": 64}
    assert meta["weights"] == str(run[0] / "checkpoints" / "step-00000001")
    assert meta["size"] == 16
    model, views = run[1].eval(), Subject.load(str(run[0])).views
    images = np.zeros((1, 5, 16, 16, 3), np.uint8)
    for i in range(5):
        views.write(Digits("test")[i].image, "", views.draw(0, 0, np.arange(5)), i, [images])
    with torch.no_grad():
        outputs = model([torch.from_numpy(images)])
    embedding = np.load(tmp_path / "out" / "embedding.npy")
    assert len(embedding) == len(Digits("test"))
    np.testing.assert_allclose(embedding[:5], outputs.embedding[0].numpy(), rtol=1e-4, atol=1e-5)
    logits = np.load(tmp_path / "out" / "logits.npy")
    np.testing.assert_allclose(logits[:5], outputs.logits[0][0].numpy(), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def weights(run, tmp_path_factory):
    """The trunk by itself, as another program would save it."""
    file = tmp_path_factory.mktemp("weights") / "trunk.pth"
    torch.save(run[1].trunk.state_dict(), file)
    return file


def test_nearest_to_an_image_file(weights, tmp_path, capsys):
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels // (i + 1)).save(tmp_path / "photos" / f"{i}.png")
    out = str(tmp_path / "out")
    words = [str(weights), str(tmp_path / "photos"), "classes=none", "--out", out, "--size=32"]
    assert main([*words, "--device=cpu"]) == 0
    shown = capsys.readouterr().out
    assert "note: the weights do not tell mean, std: taken as on ImageNet" in shown
    assert "images    6, none broken" in shown
    assert nearest_main([out, str(tmp_path / "photos" / "4.png"), "-k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r" 1\.0000  4  4\.png", lines[0])
    assert len(lines) == 2
    assert nearest_main([out, "4", "-k", "9"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    with pytest.raises(ConfigError, match=r"nearest: .*none\.png: cannot be read"):
        nearest_main([out, str(tmp_path / "none.png")])
    with pytest.raises(ConfigError, match=r"no features of 'res4'; did you mean 'res5'\?"):
        nearest_main([out, "4", "--layer=res4"])


def test_killed_and_started_again_equals_undisturbed(weights, tmp_path):
    words = [str(weights), "synthetic", "n=1500", "size=32", "--size=32", "--batch-size=4"]
    words += ["--device=cpu", "--out"]
    out, journal = tmp_path / "killed", tmp_path / "killed" / "done-1-0.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "vissl_lite", "extract", *words, str(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    while not (journal.is_file() and journal.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = journal.read_bytes().count(b"\n")
    assert 5 <= done < 375
    for folder in (out, tmp_path / "whole"):
        assert command("extract", *words, str(folder), cwd=tmp_path).returncode == 0
    names = sorted(os.listdir(tmp_path / "whole"))
    assert sorted(os.listdir(out)) == names
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not np.isnan(np.load(out / "res5.npy")).any()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["w.pth", "digits"], "the following arguments are required: --out"),
        (["w.pth", "--out=y"], "the following arguments are required: SOURCE"),
        (["w.pth", "digits", "--out=y"], "weights: w.pth is neither a run"),
        (["w.pth", "digts", "--out=y"], "extract: 'digts' is no folder.*did you mean 'digits'"),
        (["w.pth", "digits", "--out=y", "--dtype=int8"], "argument --dtype: invalid choice"),
        (["w.pth", "digits", "--out=y", "launch.processes=0"], "launch.processes: 0; needs 1"),
    ],
)
def test_mistakes(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        main([*words, "--device=cpu"])
    assert not os.listdir(tmp_path)


def test_help(capsys):
    assert main([]) == nearest_main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "--batch-size N" in out
    assert "IMAGE|INDEX" in out
    assert max(map(len, out.splitlines())) <= 100
