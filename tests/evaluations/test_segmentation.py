"""IoU against scikit-learn; label maps, crops; a tiny training on a CNN and on a ViT."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from data.some_sources import Numbers
from distributed import run_ranks
from engine.some_digits import CPU, FP32, small_model
from evaluations.composed import compose, digits, photographs
from evaluations.stopped import Stopped, stop_after
from PIL import Image
from sklearn.metrics import confusion_matrix, jaccard_score

from vissl_lite import EVALUATIONS, TRUNKS, ConfigError
from vissl_lite.config import Labelled
from vissl_lite.engine.bench import Bench
from vissl_lite.errors import WorkerDied
from vissl_lite.evaluations._coco import read
from vissl_lite.evaluations._detection_data import Place, Rows, batches, once_each
from vissl_lite.evaluations._segmentation_data import LabelMaps, Painted, Scene, Scenes
from vissl_lite.evaluations._segmentation_scores import confusion, scores
from vissl_lite.evaluations._training import warm_poly
from vissl_lite.evaluations.segmentation import Segmentation, loss_of, upsampled
from vissl_lite.plugins import load_entries

pytest.importorskip("pycocotools", reason="pip install vissl-lite[detection]")

SMALL = {"size": 64, "iterations": 60, "batch_size": 4, "lr": 0.1, "warmup": 5}
SMALL |= {"scale": (0.9, 1.2), "layer": "res2"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same scenes in COCO's format and, below `maps`, as label maps."""
    folder = tmp_path_factory.mktemp("composed")
    for seed, (split, images) in enumerate({"train": 24, "test": 10}.items()):
        compose(folder / split, digits(split), photographs(), images=images, size=64, seed=seed)
        (folder / split / "maps").mkdir()
        painted = Painted("class", "here")
        rows = painted.rows(annotated(folder, split))
        for row in (rows[i] for i in range(len(rows))):
            name = row["image"].rpartition("/")[2]
            Image.fromarray(painted(row)).save(folder / split / "maps" / name)
    return folder


def annotated(folder, split):
    given = folder / split
    return read(str(given / "images"), str(given / "annotations.json"), True, "here", "images")


def files(folder, labels="annotations.json"):
    return {
        f"{what}_{split}": str(folder / split / name)
        for split in ("train", "test")
        for what, name in {"images": "images", "labels": labels}.items()
    }


def test_a_dead_worker_names_its_image(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    scenes = Scenes(
        Rows([{"image": str(tmp_path / "0.png")}]),
        Numbers.kill,  # instead of labels
        **{"size": 8, "stride": 8, "scale": None, "flip": False, "seed": 0},
    )
    with pytest.raises(WorkerDied, match=r"was killed by SIGKILL .*, at image 0, .*/0.png$"):
        list(batches(scenes, once_each(1, 1), workers=1))


def bench_in(folder, model=None):
    notes = []
    return Bench(
        model or small_model(),
        Labelled(),
        {},
        device=CPU,
        numerics=FP32,
        folder=folder,
        note=notes.append,
    ), notes


# ---------------------------------------------------------------- scores


def test_scores_are_those_of_sklearn():
    rng = np.random.default_rng(0)
    label, predicted = rng.integers(0, 6, 5000), rng.integers(0, 6, 5000)
    predicted = np.where(rng.random(5000) < 0.6, label, predicted)
    label[label == 4] = 255
    predicted[predicted == 4] = 3  # class 4 never occurs
    counts = confusion(torch.from_numpy(label), torch.from_numpy(predicted), 6)
    known = label != 255
    expected = confusion_matrix(label[known], predicted[known], labels=range(6))
    assert (counts.numpy() == expected).all()
    metrics, ious = scores(counts)
    present = [0, 1, 2, 3, 5]
    each = jaccard_score(label[known], predicted[known], labels=present, average=None)
    assert [ious[k] for k in present] == pytest.approx(each.tolist(), abs=1e-12)
    assert np.isnan(ious[4])
    assert metrics["miou"] == pytest.approx(each.mean(), abs=1e-12)
    accuracy = (label == predicted)[known].mean()
    assert metrics["pixel_accuracy"] == pytest.approx(accuracy, abs=1e-12)


def test_loss_is_the_mean_over_pixels_with_a_class():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 4)
    label = torch.randint(0, 3, (2, 8, 8))
    label[0, :3] = 255
    batch = [Scene(torch.zeros(8, 8, 3, dtype=torch.uint8), label_HW, "") for label_HW in label]
    found = loss_of(torch.nn.Identity(), lambda x_BHWC: logits, batch)
    likely = upsampled(logits, (8, 8)).double().log_softmax(1)
    known = [
        -likely[b, label[b, i, j], i, j]
        for b in range(2)
        for i in range(8)
        for j in range(8)
        if label[b, i, j] != 255
    ]
    assert found.item() == pytest.approx(torch.stack(known).mean().item(), abs=1e-6)
    empty = [Scene(scene.image_HWC, torch.full((8, 8), 255), "") for scene in batch]
    assert loss_of(torch.nn.Identity(), lambda x_BHWC: logits, empty) == 0


# ---------------------------------------------------------------- training


def test_it_learns_the_same_from_both_formats(folder, tmp_path):
    bench, notes = bench_in(tmp_path)
    before = {name: t.clone() for name, t in bench.model.state_dict().items()}
    metrics = Segmentation(**files(folder), **SMALL).evaluate(bench)
    maps = Segmentation(**files(folder, "maps"), classes=4, **SMALL)
    assert maps.evaluate(bench_in(None)[0]) == metrics
    assert metrics["pixel_accuracy"] > 0.85
    assert metrics["miou"] > 0.35
    left = json.loads((tmp_path / "evaluations" / "segmentation" / "iou.json").read_text())
    assert list(left) == ["background", "zero", "one", "seven"]
    assert np.mean(list(left.values())) == pytest.approx(metrics["miou"])
    assert len(notes) == 10
    assert all(torch.equal(before[name], t) for name, t in bench.model.state_dict().items())


def test_a_transformers_patches(folder):
    load_entries()
    model = small_model()
    model.trunk = TRUNKS.build({"name": "vit", "size": "tiny", "image_size": 64}, "trunk")
    entry = Segmentation(**files(folder), **{**SMALL, "layer": None, "iterations": 2})
    assert entry._map(model.trunk) == ("patches", 16)
    metrics = entry.evaluate(bench_in(None, model)[0])
    assert 0 < metrics["miou"] < 1


def few_steps(rank, world, folder):
    torch.manual_seed(rank + 10)
    return Segmentation(**files(folder), **{**SMALL, "iterations": 4}).evaluate(bench_in(None)[0])


def test_the_same_on_several_processes(folder):
    """BatchNorm has the statistics of the whole batch, gradients are averaged."""
    alone = few_steps(0, 1, folder)
    first, second = run_ranks(few_steps, 2, folder)
    assert first == second
    assert first["pixel_accuracy"] == pytest.approx(alone["pixel_accuracy"], abs=0.03)


def test_stopped_in_mid_training_it_goes_on(folder, tmp_path):
    """With the same numbers as without the stop; other settings begin anew."""
    entry = Segmentation(**files(folder), **{**SMALL, "iterations": 8})
    kept = tmp_path / "stopped" / "evaluations" / "segmentation" / "training.pt"
    whole = entry.evaluate(bench_in(tmp_path / "whole")[0])
    bench, notes = bench_in(kept.parents[2])
    bench.stop_point = stop_after(5)
    with pytest.raises(Stopped):
        entry.evaluate(bench)
    assert kept.is_file()
    bench.stop_point = stop_after(0)
    with pytest.raises(Stopped):
        Segmentation(**files(folder), **{**SMALL, "iterations": 7}).evaluate(bench)
    assert not any("goes on" in note for note in notes)
    bench.stop_point = stop_after(5)
    with pytest.raises(Stopped):
        entry.evaluate(bench)
    bench.stop_point = lambda: None
    assert entry.evaluate(bench) == whole
    assert notes.count("segmentation: goes on after iteration 5") == 1
    assert not kept.exists()


def test_the_rate_rises_and_falls():
    at = [warm_poly(step, 1.0, 100, 10) for step in (0, 4, 9, 50, 99)]
    assert at == pytest.approx([0.1, 0.5 * 0.96, 0.91, 0.5, 0.01])


# ---------------------------------------------------------------- data


def test_crops_show_image_and_classes_alike(tmp_path):
    """Where the red channel says what the class is, it does so in every crop."""
    label = np.kron(np.random.default_rng(0).integers(0, 4, (3, 2)), np.ones((10, 10)))
    label = label.astype(np.uint8)
    Image.fromarray(np.stack([60 * label] * 3, 2)).save(tmp_path / "a.png")
    rows = [{"image": str(tmp_path / "a.png")}]
    scenes = Scenes(rows, lambda row: label, size=32, stride=8, scale=(1.6, 1.6), flip=True, seed=0)
    found = [scenes[[Place(0, 0, position)]][0] for position in range(8)]
    assert {tuple(scene.label_HW.shape) for scene in found} == {(32, 32)}
    assert all((scene.label_HW != 255).all() for scene in found)
    for scene in found:
        classes = scene.image_HWC[..., 0].double() / 60
        assert (classes - scene.label_HW).abs().median() < 0.02
    flipped = {scene.label_HW[0, 0].item() for scene in found}
    assert len(flipped) > 1


def test_beyond_the_image_is_no_class(tmp_path):
    Image.new("RGB", (20, 20), "white").save(tmp_path / "a.png")
    rows, label = [{"image": str(tmp_path / "a.png")}], np.zeros((20, 20), np.uint8)
    given = {"size": 32, "stride": 8, "flip": False, "seed": 0}
    (scene,) = Scenes(rows, lambda row: label, scale=(0.5, 0.5), **given)[[Place(0)]]
    inside = (scene.label_HW == 0).numpy()
    assert inside.sum() == 16**2
    assert (scene.image_HWC.numpy()[inside] == 255).all()
    assert (scene.image_HWC.numpy()[~inside] == 0).all()


def test_in_testing_the_classes_keep_their_size(tmp_path):
    Image.new("RGB", (50, 31)).save(tmp_path / "a.png")
    rows, label = [{"image": str(tmp_path / "a.png")}], np.zeros((31, 50), np.uint8)
    scenes = Scenes(rows, lambda row: label, size=32, stride=16, scale=None, flip=True, seed=0)
    (scene,) = scenes[[Place(0)]]
    assert scene.label_HW.shape == (31, 50)
    assert scene.image_HWC.shape == (32, 48, 3)


def test_small_objects_lie_on_large_ones_and_crowds_do_not_count():
    square = [[0, 0, 8, 0, 8, 8, 0, 8]]
    inner = [[2, 2, 5, 2, 5, 5, 2, 5]]
    crowd = [[6, 6, 8, 6, 8, 8, 6, 8]]
    row = {"size": [8, 8], "masks": [square, inner, crowd], "labels": [1, 2, None]}
    label = Painted("class", "here")(row)
    assert (label == 1).sum() == 64 - 9 - 4
    assert (label[2:5, 2:5] == 2).all()
    assert (label[6:, 6:] == 255).all()
    assert (Painted("ignore", "here")(row)[2:5, 2:5] == 1).all()
    assert (Painted("ignore", "here")({**row, "masks": [], "labels": []}) == 255).all()


def test_an_ignored_background(tmp_path):
    Image.fromarray(np.uint8([[0, 1, 3, 255]])).save(tmp_path / "a.png")
    row = {"label": str(tmp_path / "a.png")}
    assert LabelMaps(3, "ignore", "here")(row).tolist() == [[255, 0, 2, 255]]
    assert LabelMaps(4, "class", "here")(row).tolist() == [[0, 1, 3, 255]]


# ---------------------------------------------------------------- mistakes


def with_maps(tmp_path, label=None, **changes):
    """One image of 8 x 6 pixels and its label map, both splits."""
    (tmp_path / "images").mkdir()
    (tmp_path / "maps").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / "a.jpg")
    (label or Image.new("L", (8, 6))).save(tmp_path / "maps" / "a.png")
    paths = {"images": str(tmp_path / "images"), "labels": str(tmp_path / "maps")}
    given = {f"{what}_{split}": path for what, path in paths.items() for split in ("train", "test")}
    return Segmentation(**{**given, "classes": 3, "size": 8, **changes})


@pytest.mark.parametrize(
    ("label", "changes", "message"),
    [
        (None, {"classes": None}, r"segmentation\.classes: None; label maps need a number from 1"),
        (Image.new("L", (8, 6), 3), {}, r"labels_train: .*a\.png has class 3 of 3, counted from 0"),
        (Image.new("RGB", (8, 6)), {}, r"a\.png has Pillow's mode RGB; a label map has one byte"),
        (Image.new("L", (6, 8)), {}, r"a\.png has not the size of .*a\.jpg"),
        (None, {"labels_test": "here.json"}, "labels_train and labels_test are not of the same"),
        (None, {"images_test": "nowhere"}, r"images_test: no image nowhere/a\.jpg or \.png for"),
        (None, {"labels_test": "nowhere"}, r"labels_test: no PNG files in nowhere"),
    ],
)
def test_mistakes(tmp_path, label, changes, message):
    with pytest.raises(ConfigError, match=message):
        with_maps(tmp_path, label, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": "res9"}, r"layer: 'res9' is no map of the trunk; conv1, res2, res3, res4, res5"),
        (
            {"size": 20, "layer": "res5"},
            r"size: 20 is no multiple of 8, the stride of the layer; take 24",
        ),
    ],
)
def test_layers_and_sizes_that_do_not_fit(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        with_maps(tmp_path, **changes).check(bench_in(None)[0])


def test_more_categories_than_a_byte_tells_apart(folder, tmp_path):
    given = files(folder)
    for split in ("train", "test"):
        content = json.loads(Path(given[f"labels_{split}"]).read_text())
        content["categories"] += [{"id": 1000 + k, "name": str(k)} for k in range(255)]
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
        given[f"labels_{split}"] = str(tmp_path / f"{split}.json")
    with pytest.raises(ConfigError, match=r"labels_train: 2\d\d classes; no more than 255"):
        Segmentation(**given)


def test_builds_from_a_config(folder):
    built = EVALUATIONS.build({**files(folder), "scale": [1, 2]}, "evaluations.segmentation")
    assert (built.scale, built.background, built.brings_images) == ((1.0, 2.0), "class", True)
