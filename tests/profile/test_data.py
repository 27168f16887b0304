"""What an image costs: every stage of both back ends, and the bound, in one table."""

import json

import numpy as np
import pytest
from PIL import Image

from vissl_lite import ConfigError
from vissl_lite.plugins import load_entries
from vissl_lite.profile import data
from vissl_lite.profile.data import main
from vissl_lite.profile.data_report import print_report

load_entries()
FEW = ["rounds=1", "device=cpu"]


@pytest.fixture
def photographs(tmp_path):
    y, x = np.mgrid[:300, :400]
    for i in range(8):
        waves = [np.sin(x * (i + 1) / 40 + y / (20 + c)) * 100 + 120 for c in range(3)]
        Image.fromarray(np.stack(waves, -1).astype(np.uint8)).save(tmp_path / f"{i}.jpg")
    words = ["data/source=image_folder", "data.source.classes=none"]
    return [*words, f"data.source.path={tmp_path}"]


def measured(tmp_path, *words):
    file = tmp_path / "result.json"
    assert main(["images=6", *words, *FEW, f"json={file}"]) == 0
    return json.loads(file.read_text())


def test_photographs(tmp_path, photographs, capsys):
    words = ["config=pretrain/swav/resnet50_in1k_100ep", "train.batch_size=6", *photographs]
    result = measured(tmp_path, *words)
    cost = result["cost"]
    assert list(cost) == ["bound", "reference", "fast, worker", "fast, device"]
    on_core = ["source", "decode", "crop", "colour", "collate"]
    assert list(cost["fast, device"]) == [*on_core, "device"]
    assert list(cost["fast, worker"]) == list(cost["reference"]) == on_core
    total = {kind: sum(stages.values()) for kind, stages in cost.items()}
    assert cost["reference"]["colour"] > cost["reference"]["decode"] > 0
    assert total["reference"] > total["fast, worker"] > total["bound"] > 0
    assert result["views"] == "2 x 224 px + 6 x 96 px"
    shown = capsys.readouterr().out
    assert "chosen: fast back end, flips and colours" in shown
    assert max(map(len, shown.splitlines())) <= 80
    for row in ("images/s", "ms per image", "decode", "transfer", "x reference", "of the bound"):
        assert f"\n{row} " in shown
    assert "none" in next(line for line in shown.splitlines() if line.startswith("transfer "))


def test_images_in_memory(tmp_path):
    result = measured(tmp_path, "config=quickstart")
    assert list(result["cost"]["memory"]) == ["device"]
    assert "fit in memory" in result["way"]


def test_a_place_that_was_chosen_is_the_one_measured(tmp_path, photographs):
    words = ["config=pretrain/simclr/resnet50_in1k_100ep", "train.batch_size=6", *photographs]
    result = measured(tmp_path, *words, "data.augment_on=worker")
    assert list(result["cost"]) == ["bound", "reference", "fast, worker"]


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="bench data: images=0: needs a whole number"):
        main(["config=quickstart", "images=0"])
    with pytest.raises(ConfigError, match=r"unknown key 'image' .* did you mean 'images'"):
        main(["config=quickstart", "image=4"])


def test_usage(capsys):
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: vissl-lite bench data config=RECIPE")


def test_images_that_cannot_be_read_are_left_out(tmp_path, photographs, capsys):
    whole = (tmp_path / "0.jpg").read_bytes()
    (tmp_path / "1.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "2.jpg").write_text("no image")
    Image.fromarray(np.ones((40, 40), np.float32)).save(tmp_path / "3.tiff")
    (tmp_path / "4.jpg").unlink()
    (tmp_path / "4.jpg").symlink_to("nowhere.jpg")
    words = ["config=pretrain/simclr/resnet50_in1k_100ep", "train.batch_size=6", *photographs]
    result = measured(tmp_path, *words, "images=9", "data.augment_on=worker")
    assert (result["images"], len(result["broken"])) == (5, 4)
    shown = " ".join(capsys.readouterr().out.split())
    assert "left out: 4 that cannot be read, the first: " in shown
    for name in ("0", "5", "6", "7"):
        (tmp_path / f"{name}.jpg").write_text("no image")
    (tmp_path / "3.jpg").unlink()
    with pytest.raises(ConfigError, match="none of 6 images can be read, the first"):
        measured(tmp_path, *words)


def test_linear_and_compiled_as_a_run_would_be(tmp_path, photographs, monkeypatch):
    seen, compiled = {}, []
    monkeypatch.setattr(data, "_measure", lambda kinds, *_: seen.update(kinds) or {})
    monkeypatch.setattr(data, "print_report", lambda result: None)
    monkeypatch.setattr("vissl_lite.data.choose.worth_compiling", lambda *_: True)
    monkeypatch.setattr("torch.compile", lambda chain, **_: compiled.append(chain) or chain)
    words = ["config=pretrain/simclr/resnet50_in1k_100ep", "train.batch_size=6", *photographs]
    words += ["data.augment_on=device"]
    crops = []
    for resize in ("antialias", "linear"):
        measured(tmp_path, *words, f"data.resize={resize}")
        crops.append(seen["fast, device"]["collate"]().views[0].int())
    assert 0.1 < (crops[0] - crops[1]).abs().float().mean() < 5
    assert not compiled
    seen["fast, device"]["device"]()
    assert len(compiled) == 1


def test_the_table_of_a_gpu_leaves_its_time_out_of_the_core(capsys):
    core = {"source": 0.0, "decode": 1e-3, "crop": 5e-4, "colour": -1e-9, "collate": 5e-4}
    cost = {
        "bound": {"decode": 1e-3},
        "reference": {**core, "colour": 8e-3, "transfer": 1e-4},
        "fast, device": {**core, "transfer": 1e-4, "device": 1e-3},
        "memory": {"device": 1e-4},
    }
    head = {"source": "Source()", "views": "2 x 224 px", "images": 6, "rounds": 1, "broken": []}
    print_report({**head, "way": "fast", "device": "cuda:0", "cost": cost})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["one", "core", "1,000", "100", "500", "-"] in lines
    assert ["one", "core", "1.000", "10.000", "2.000", "0.000"] in lines
    assert ["transfer", "10,000", "10,000"] in lines
    assert ["device", "1,000", "10,000"] in lines
    assert ["x", "reference", "10.0x", "1.0x", "5.0x", "-"] in lines
    assert ["of", "the", "bound", "100%", "10%", "50%", "-"] in lines
