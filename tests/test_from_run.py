"""What evaluation recipes take from weights that belong to no run."""

import pytest
import torch

from vissl_lite import TRUNKS, ConfigError
from vissl_lite.config import IMAGENET_MEAN, IMAGENET_STD
from vissl_lite.from_run import around
from vissl_lite.overrides import compose
from vissl_lite.plugins import load_entries

load_entries()
RESNET = {"name": "resnet", "depth": 18, "stem": "cifar", "width_multiplier": 0.125}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A trunk by itself, in a folder as sweeps name them."""
    folder = tmp_path_factory.mktemp("weights") / "lr=0.1, it's [1] (x)"
    folder.mkdir()
    torch.save(TRUNKS.build(RESNET).state_dict(), folder / "trunk.pth")
    return folder / "trunk.pth"


def test_a_recipe_around_a_file(file, capsys):
    images = ["labelled.train=digits", "labelled.test={name: digits, split: test}"]
    config = compose(["config=evaluate/knn", f"init={file}", *images, "labelled.size=32"])
    assert config.init == str(file)
    assert {key: config.trunk[key] for key in RESNET} == RESNET
    assert (config.heads, config.layer, config.pool) == ([], None, "avg")
    assert (config.data.mean, config.data.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert config.labelled.size == 32
    note = capsys.readouterr().err
    assert note.count("note:") == 1
    assert "does not tell data.mean, data.std: taken as on ImageNet" in note


def test_labelled_images_stay_unset(file):
    config = compose(["config=evaluate/knn", f"init={file}"])
    assert (config.labelled.train, config.labelled.test, config.labelled.size) == (None, None, 224)


def test_nothing_is_noted_where_all_is_told(file, capsys):
    told = ["data.mean=[0,0,0]", "data.std=[1,1,1]", "labelled.size=8"]
    around(str(file), told)
    assert capsys.readouterr().err == ""


def test_a_file_beside_a_foreign_config(file, tmp_path):
    (tmp_path / "config.yaml").write_text("model: other\n")
    (tmp_path / "trunk.pth").write_bytes(file.read_bytes())
    config = compose(["config=evaluate/knn", f"init={tmp_path / 'trunk.pth'}"])
    assert config.trunk["depth"] == 18


def test_no_such_weights():
    with pytest.raises(ConfigError, match=r"^init: nowhere is neither a run"):
        around("nowhere")
