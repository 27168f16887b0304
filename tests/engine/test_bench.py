"""What evaluations get, and what they say when the labelled images do not fit."""

from dataclasses import replace

import pytest
import torch
from engine.some_digits import CPU, FP32, SomeDigits, small_model
from training import small

from vissl_lite import ConfigError
from vissl_lite.config import Labelled
from vissl_lite.engine import bench as bench_module
from vissl_lite.engine.bench import Bench, labelled_sources
from vissl_lite.engine.evaluate import Evaluations

LABELLED = Labelled(size=8, transforms=[], batch_size=16)
RESIZE = [{"name": "resize", "short_side": 16}]


def bench_of(sources, notes=None):
    note = (lambda text: None) if notes is None else notes.append
    return Bench(small_model(), LABELLED, sources, device=CPU, numerics=FP32, note=note)


def test_every_layer_of_every_split_is_computed_once(monkeypatch):
    calls, real = [], bench_module.extract

    def counted(model, source, views, layers, **settings):
        calls.append((len(source), list(layers)))
        return real(model, source, views, layers, **settings)

    monkeypatch.setattr(bench_module, "extract", counted)
    bench = bench_of({"train": SomeDigits(20), "test": SomeDigits(10)})
    first = bench.features("train")
    assert list(bench.features("train", ["embedding", "res5"]).features) == ["embedding", "res5"]
    again = bench.features("train", ["res5"])
    bench.features("test")
    assert calls == [(20, ["res5"]), (20, ["embedding"]), (10, ["res5"])]
    assert again.features["res5"] is first.features["res5"]
    assert bench.num_classes == 10


def test_unreadable_images_are_told_once():
    notes = []
    bench = bench_of({"train": SomeDigits(20, broken=(1, 4, 5, 6)), "test": SomeDigits(5)}, notes)
    bench.features("train")
    bench.features("train", ["embedding"])
    assert notes == ["evaluation: 4 unreadable images left out: n1, n4, n5, ..."]


def test_no_labelled_image_is_an_error():
    bench = bench_of({"train": SomeDigits(5, unlabelled=range(5)), "test": SomeDigits(5)})
    with pytest.raises(ConfigError, match=r"labelled\.train: has no readable image with a label"):
        bench.features("train")


def labelled(train, test):
    return small("evaluations=[knn]", f"++labelled.train={train}", f"++labelled.test={test}")


def test_sources_of_a_config():
    found = labelled_sources(labelled("{name: digits}", "{name: digits, split: test}"))
    assert {split: len(source) for split, source in found.items()} == {"train": 1438, "test": 359}


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("null", "{name: digits}", r"labelled\.train: evaluations \(knn\) need labelled images"),
        ("{name: digits}", "null", r"labelled\.test: evaluations \(knn\) need labelled images"),
    ],
)
def test_missing_sources(train, test, message):
    with pytest.raises(ConfigError, match=message):
        labelled_sources(labelled(train, test))


def folder_of_images(folder, classes):
    from PIL import Image

    for name in classes:
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / name / "0.png")
    return f"{{name: image_folder, path: '{folder}'}}"


def test_other_classes_in_train_and_test(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    train = folder_of_images(tmp_path / "train", ["cat", "dog"])
    test = folder_of_images(tmp_path / "test", ["cat", "fox"])
    with pytest.raises(ConfigError, match=r"labelled\.test: its classes are not .* \(dog, fox\)"):
        labelled_sources(labelled(train, test))


def test_class_names_in_common(tmp_path, monkeypatch):
    """cat, dog, fox beside cat, elk, fox; evaluations that compare class ids still refuse them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    train = folder_of_images(tmp_path / "train", ["cat", "dog", "fox"])
    test = folder_of_images(tmp_path / "test", ["cat", "elk", "fox"])
    config = labelled(train, test)
    alone = replace(config, evaluations={"retrieval": {}, "copy_detection": {}})
    sources = Evaluations(alone, CPU, tmp_path).sources
    assert [sources["train"][i].label for i in range(3)] == [0, 1, 2]
    assert [sources["test"][i].label for i in range(3)] == [0, 3, 2]
    assert bench_of(sources).num_classes == 4
    both = replace(config, evaluations={"retrieval": {}, "knn": {}})
    with pytest.raises(
        ConfigError, match=r"its classes are not .* \(dog, elk\).*\(retrieval, copy"
    ):
        Evaluations(both, CPU, tmp_path)


def test_a_source_without_labels(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder_of_images(tmp_path / "train", ["cat"])
    images = f"{{name: image_folder, path: '{tmp_path / 'train' / 'cat'}'}}"
    with pytest.raises(ConfigError, match=r"labelled\.train: source 'image_folder' has no labels"):
        labelled_sources(labelled(images, "{name: digits}"))


def test_images_seen_in_another_way_are_not_kept():
    bench = bench_of({"train": SomeDigits(20), "test": SomeDigits(10)})
    usual = bench.features("test").features["res5"]
    larger = bench.seen("test", replace(LABELLED, size=16, transforms=RESIZE))
    assert larger.features["res5"].shape == usual.shape
    assert not torch.equal(larger.features["res5"], usual)
    assert bench.features("test").features["res5"].equal(usual)


def test_random_transforms_do_other_things_in_other_epochs():
    flips = replace(LABELLED, transforms=[{"name": "random_horizontal_flip"}])
    bench = bench_of({"train": SomeDigits(20), "test": SomeDigits(10)})
    first, second, again = (
        bench.seen("train", flips, epoch=epoch).features["res5"] for epoch in (0, 1, 0)
    )
    assert first.equal(again)
    assert not first.equal(second)


def test_files_are_left_in_the_folder_of_the_run(tmp_path):
    bench = bench_of({"train": SomeDigits(5), "test": SomeDigits(5)})
    assert bench.files("knn") is None
    bench.folder = tmp_path
    assert bench.files("knn") == tmp_path / "evaluations" / "knn"
    assert (tmp_path / "evaluations" / "knn").is_dir()


def test_features_do_not_remember_a_graph():
    bench = bench_of({"train": SomeDigits(5), "test": SomeDigits(5)})
    x = bench.features("train").features["res5"]
    assert not x.requires_grad
    assert not torch.is_inference(x)
