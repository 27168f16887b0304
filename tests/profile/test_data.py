"""What an image costs: every stage of both back ends, and the bound, in one table."""

import json

import numpy as np
import pytest
from PIL import Image

from vissl_lite import ConfigError
from vissl_lite.plugins import load_entries
from vissl_lite.profile.data import STAGES, main

load_entries()
FEW = ["images=6", "rounds=1", "device=cpu"]


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
    assert main([*words, *FEW, f"json={file}"]) == 0
    return json.loads(file.read_text())


def test_photographs(tmp_path, photographs, capsys):
    words = ["config=pretrain/swav/resnet50_in1k_100ep", "train.batch_size=6", *photographs]
    result = measured(tmp_path, *words)
    cost = result["cost"]
    assert list(cost) == ["bound", "reference", "fast, worker", "fast, device"]
    assert list(cost["fast, device"]) == list(STAGES)
    total = {kind: sum(stages.values()) for kind, stages in cost.items()}
    assert cost["reference"]["colour"] > cost["reference"]["decode"] > 0
    assert total["reference"] > total["fast, worker"] > total["bound"] > 0
    assert result["views"] == "2 x 224 px + 6 x 96 px"
    shown = capsys.readouterr().out
    assert "chosen: fast back end, flips and colours" in shown
    assert max(map(len, shown.splitlines())) <= 100
    for row in ("decode", "images/s per core", "of the reference", "of the bound"):
        assert f"\n{row} " in shown


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
