"""What evaluation recipes take from weights that belong to no run."""

from dataclasses import asdict

import pytest
import torch
import yaml

from vissl_lite import TRUNKS, ConfigError
from vissl_lite.config import IMAGENET_MEAN, IMAGENET_STD
from vissl_lite.engine.journal import save_config
from vissl_lite.from_run import around
from vissl_lite.overrides import compose, hydra_arguments
from vissl_lite.plugins import load_entries
from vissl_lite.shown import print_config

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


@pytest.mark.parametrize("recipe", ["linear", "finetune"])
def test_a_chosen_dataset_wins_over_the_run(file, recipe, capsys):
    """Its labelled images, their size and view; mean and std are those of the weights."""
    words = [f"config=evaluate/{recipe}", f"init={file}"]
    config = compose([*words, "dataset=digits"])
    digits = {split: {"name": "digits", "split": split} for split in ("train", "test")}
    assert {"train": config.labelled.train, "test": config.labelled.test} == digits
    assert config.labelled.transforms == [{"name": "resize", "crop_fraction": 1.0}]
    assert (config.labelled.size, config.data.mean) == (32, IMAGENET_MEAN)
    assert "labelled.size" not in capsys.readouterr().err
    config = compose([*words, "dataset=imagenet"])
    assert config.labelled.test["path"].endswith("/val")
    assert config.labelled.size == 224


def test_single_keys_win_over_a_chosen_dataset(file):
    words = ["config=evaluate/linear", f"init={file}", "dataset=digits"]
    config = compose([*words, "labelled.size=24", "labelled.train={name: synthetic, n: 7}"])
    assert (config.labelled.train["name"], config.labelled.size) == ("synthetic", 24)
    assert config.labelled.test["name"] == "digits"


def test_a_dataset_without_labels_leaves_those_of_the_run(tmp_path):
    save_config(asdict(compose(["config=quickstart"])), tmp_path)
    torch.save(TRUNKS.build(RESNET).state_dict(), tmp_path / "trunk.pth")
    words = ["config=evaluate/linear", f"init={tmp_path}"]
    assert compose([*words, "dataset=images"]).labelled == compose(words).labelled
    assert compose(words).labelled.train["name"] == "digits"


def test_a_chosen_dataset_is_shown(file, capsys):
    args = ["config=evaluate/linear", f"init={file}", "dataset=digits", "--cfg", "job"]
    print_config(args, hydra_arguments(args))
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["labelled"]["train"] == {"name": "digits", "split": "train"}
    assert shown["data"]["mean"] == "${from_run:data.mean}"


def test_no_such_weights():
    with pytest.raises(ConfigError, match=r"^init: nowhere is neither a run"):
        around("nowhere")
