"""A dry run on a machine that does not have the images."""

import pytest
from PIL import Image
from training import small

from vissl_lite import SOURCES
from vissl_lite.engine.dry_run import dry_run
from vissl_lite.errors import ConfigError


def test_images_that_are_elsewhere_are_made_up_and_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CIFAR10", str(tmp_path / "cifar10"))
    dry_run(small("dataset=cifar10"))
    printed = "".join(capsys.readouterr().out.split())  # a terminal breaks long paths anywhere
    assert "imagessynthetic,of1,000classes,fordata.source.path:'/" in printed
    assert "cifar10/train'doesnotexist" in printed
    assert "lengthnotknownwithouttheimages" in printed


def test_images_that_are_there_but_wrong_are_an_error(tmp_path, monkeypatch):
    (tmp_path / "train").mkdir()
    monkeypatch.setenv("CIFAR10", str(tmp_path))
    with pytest.raises(ConfigError, match="no images"):
        dry_run(small("dataset=cifar10"))


def test_the_list_of_the_images_is_kept(tmp_path, monkeypatch):
    """A run of many machines finds what one has listed."""
    for name in "abcd":
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / name / "1.png")
    monkeypatch.setenv("VISSL_LITE_CACHE", str(tmp_path / "cache"))
    source = {"name": "image_folder", "path": str(tmp_path / "images")}
    words = ["data/source=image_folder", f"data.source.path={source['path']}"]
    dry_run(small(*words, "++train.batch_size=4"))
    monkeypatch.setattr("vissl_lite.sources._index._build", None)
    assert len(SOURCES.build(source)) == 4


def test_nothing_is_made_up_where_the_images_are(capsys):
    dry_run(small())
    assert "synthetic" not in capsys.readouterr().out
