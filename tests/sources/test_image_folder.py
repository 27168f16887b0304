"""image_folder against torchvision's ImageFolder, on real digits written as PNG and JPEG."""

import os
import pickle
import subprocess
import tarfile
import time
from threading import Thread

import numpy as np
import pytest
from conftest import data_folder
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets

from vissl_lite import SOURCES, ConfigError
from vissl_lite.plugins import path_variables
from vissl_lite.sources import _index
from vissl_lite.sources.image_folder import ImageFolder

DIGITS = load_digits()


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISSL_LITE_CACHE", str(tmp_path / "cache"))


def write_image(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((DIGITS.images[number] * 15).astype(np.uint8)).save(path)


@pytest.fixture
def tree(tmp_path):
    """Thirty digits in class folders "0".."9", one level deeper for some, PNG and JPEG."""
    for i, label in enumerate(DIGITS.target[:30]):
        deeper = "deep/" if i % 7 == 0 else ""
        write_image(
            tmp_path / "images" / str(label) / f"{deeper}{i:02d}.{'jpg' if i % 2 else 'PNG'}", i
        )
    return tmp_path / "images"


def test_same_images_and_labels_as_torchvision(tree):
    source, theirs = ImageFolder(str(tree)), datasets.ImageFolder(str(tree))
    ours = [(sample.image, sample.label) for sample in source]
    assert sorted(ours) == sorted(theirs.samples)
    assert len(ours) == 30
    assert (source.classes, source.num_classes) == (theirs.classes, 10)
    assert source.all_labels().tolist() == [label for _, label in ours]
    assert source.all_tags() is None


def test_pixels_come_back(tree):
    sample = next(s for s in ImageFolder(str(tree)) if s.name.endswith("02.PNG"))
    assert np.array_equal(Image.open(sample.image), DIGITS.images[2] * 15)
    assert sample.label == DIGITS.target[2]


def test_without_classes(tree):
    source = ImageFolder(str(tree), classes="none")
    assert len(source) == 30
    assert source.num_classes is source.classes is source[0].label is None
    write_image(tree / "loose.png", 0)
    assert ImageFolder(str(tree)).num_classes is None  # "auto" sees the image beside the folders
    with pytest.raises(ConfigError, match=r"beside its class folders, 'loose.png'"):
        ImageFolder(str(tree), classes="folders")


def test_order_is_that_of_the_paths(tmp_path):
    for name in ("b/2.png", "a/9.png", "a/10.png", "c.png"):
        write_image(tmp_path / "flat" / name, 0)
    names = [sample.name for sample in ImageFolder(str(tmp_path / "flat"))]
    assert names == ["c.png", "a/10.png", "a/9.png", "b/2.png"]


def test_index_out_of_range(tree):
    source = ImageFolder(str(tree))
    for index in (-1, 30):
        with pytest.raises(IndexError, match=rf"30 images, 10 classes.*has no image {index}"):
            source[index]


def test_new_images_are_seen_and_deep_ones_after_refresh(tree):
    folder = str(tree)
    assert len(ImageFolder(folder)) == 30
    write_image(tree / "3" / "new.png", 3)
    assert len(ImageFolder(folder)) == 31
    write_image(tree / "0" / "deep" / "new.png", 0)
    assert len(ImageFolder(folder)) == 31
    assert len(ImageFolder(folder, refresh=True)) == 32
    assert len(ImageFolder(folder)) == 32


def test_prepared_index_is_not_built_again(tree, monkeypatch):
    before = [s.image for s in ImageFolder(str(tree))]
    monkeypatch.setattr(_index, "_build", None)
    assert [s.image for s in ImageFolder(str(tree))] == before


def test_source_survives_that_its_index_is_replaced(tree):
    old = ImageFolder(str(tree))
    sent = pickle.dumps(old)
    assert len(sent) < 3000  # paths of the index, not of the images
    write_image(tree / "3" / "new.png", 3)
    ImageFolder(str(tree))
    assert [s.image for s in pickle.loads(sent)] == [s.image for s in old]


def test_killed_build_leaves_no_index(tree, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    place = tmp_path / "index"
    monkeypatch.setattr("vissl_lite.sources.image_folder._walk", killed)
    with pytest.raises(KeyboardInterrupt):
        ImageFolder(str(tree), index=str(place))
    assert [f.name for f in place.iterdir()] == ["lock"]


def test_those_that_ask_together_build_once(tree, tmp_path, monkeypatch):
    built, waiting, build, locked = [], [], _index._build, _index._locked
    monkeypatch.setattr(_index, "_build", lambda *a: built.append(1) or build(*a))
    monkeypatch.setattr(_index, "_locked", lambda *a: waiting.append(1) or locked(*a))
    options = {"index": str(tmp_path / "index"), "refresh": True}
    threads = [Thread(target=ImageFolder, args=(str(tree),), kwargs=options) for _ in range(4)]
    with locked(tmp_path / "index", "test"):
        for thread in threads:
            thread.start()
        while len(waiting) < 4:
            time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_old_data_folders_go_after_a_week_and_others_stay(tree, tmp_path):
    place = tmp_path / "index"
    ImageFolder(str(tree), index=str(place))
    (old,) = place.glob("data-*")
    os.utime(old, (0, 0))
    (place / "data-of-mine").mkdir()
    os.utime(place / "data-of-mine", (0, 0))
    ImageFolder(str(tree), index=str(place), refresh=True)
    assert not old.exists()
    assert (place / "data-of-mine").exists()


def test_exclude(tree, tmp_path):
    paths = [s.name for s in ImageFolder(str(tree))]
    (tmp_path / "bad.txt").write_text(f"{paths[0]}\n\n{paths[1].split('/')[-1]}\n")
    source = ImageFolder(str(tree), exclude=str(tmp_path / "bad.txt"))
    assert [s.name for s in source] == paths[2:]
    (tmp_path / "bad.txt").write_text(f"{paths[5]}\n")
    assert len(ImageFolder(str(tree), exclude=str(tmp_path / "bad.txt"))) == 29


def test_links_are_followed_but_not_in_circles(tree, tmp_path):
    (tree / "3" / "circle").symlink_to(tree)
    assert len(ImageFolder(str(tree), classes="none")) == 30
    (tmp_path / "linked").symlink_to(tree)
    assert len(ImageFolder(str(tmp_path / "linked"), classes="none")) == 30


def test_names_that_are_no_utf8(tmp_path):
    folder = tmp_path / "odd"
    write_image(folder / "plain.png", 5)
    os.rename(folder / "plain.png", os.fsencode(folder) + b"/\xff\x1b[31m.png")
    sample = ImageFolder(str(folder))[0]
    assert np.array_equal(Image.open(sample.image), DIGITS.images[5] * 15)
    assert sample.name == r"\udcff\x1b[31m.png"


@pytest.mark.parametrize(("variable", "unset"), path_variables().items())
def test_a_missing_path_of_a_recipe_names_its_variable(variable, unset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(variable, raising=False)
    config = {"name": "image_folder", "path": f"{unset}/train"}
    with pytest.raises(ConfigError, match=rf"^x.path: .*; set \${variable}, or this key$"):
        SOURCES.build(config, "x")
    monkeypatch.setenv(variable, "elsewhere")
    with pytest.raises(ConfigError, match="the nearest that does is"):
        SOURCES.build(config, "x")


def test_mistakes(tree, tmp_path):
    with pytest.raises(ConfigError, match=r"images/deep' does not exist; the nearest .*images'$"):
        ImageFolder(str(tree / "deep"))
    with pytest.raises(ConfigError, match=r"did you mean 'images'"):
        ImageFolder(str(tmp_path / "imags" / "train"))
    with pytest.raises(ConfigError, match=r"looked for .gif; check path and extensions"):
        SOURCES.build(
            {"name": "image_folder", "path": str(tree), "classes": "none", "extensions": [".gif"]}
        )
    (tree / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no images in .*/empty, .*remove this class"):
        ImageFolder(str(tree))
    with pytest.raises(ConfigError, match=r"is a file; name a folder"):
        ImageFolder(str(next(tree.rglob("*.PNG"))))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written to .*VISSL_LITE_CACHE"):
        ImageFolder(str(tree), index=str(tmp_path / "file" / "index"))


def test_listing_of_real_photographs(tmp_path):
    if data_folder() is None:
        pytest.skip("no real images; set VISSL_LITE_DATA")
    with tarfile.open(data_folder() / "cifar10-images.tar.xz") as tar:
        for _, member in zip(range(50), tar):
            if member.isfile():
                path = tmp_path / "cifar" / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                with tar.extractfile(member) as file:
                    path.write_bytes(file.read())
    source = ImageFolder(str(tmp_path / "cifar" / "train"))
    listed = subprocess.run(
        ["find", tmp_path / "cifar", "-name", "*.jpg"], capture_output=True, text=True
    )
    assert sorted(s.image for s in source) == sorted(listed.stdout.split())
    assert source.classes == ["airplane"]
    with Image.open(source[0].image) as image:
        assert image.size == (32, 32)
