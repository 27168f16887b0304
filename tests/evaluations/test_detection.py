"""Average precision against its definition; annotations, crops and gradients; a tiny training."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from distributed import run_ranks
from engine.some_digits import CPU, FP32, small_model
from evaluations.composed import compose, digits, photographs
from evaluations.naive_ap import naive_scores
from evaluations.stopped import Stopped, stop_after
from PIL import Image

from vissl_lite import EVALUATIONS, TRUNKS, ConfigError
from vissl_lite.config import Labelled
from vissl_lite.engine.bench import Bench
from vissl_lite.evaluations._coco import read
from vissl_lite.evaluations._coco_masks import decoded
from vissl_lite.evaluations._detection_data import Pictures, Place, once_each, training_order
from vissl_lite.evaluations._detection_scores import average_precision
from vissl_lite.evaluations._training import warm_steps
from vissl_lite.evaluations.detection import PLACE, Detection
from vissl_lite.plugins import load_entries

pytest.importorskip("pycocotools", reason="pip install vissl-lite[detection]")

RESNET = {"name": "resnet", "depth": 18, "width_multiplier": 0.125}
BROKEN = 3  # an image of "few" with objects
SMALL = {
    **{"train_sizes": (48,), "test_size": 48, "longest": 48, "batch_size": 4, "lr": 0.04},
    **{"warmup": 10, "channels": 32, "hidden": 64, "proposals": 32},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("composed")
    for seed, (split, images) in enumerate({"train": 40, "test": 12, "few": 4}.items()):
        compose(
            folder / split,
            digits("train" if split == "train" else "test"),
            photographs(),
            images=images,
            size=48,
            seed=seed,
        )
    return folder


def files(folder, train="train", test="test"):
    return {
        f"{what}_{split}": str(folder / given / name)
        for split, given in {"train": train, "test": test}.items()
        for what, name in {"images": "images", "annotations": "annotations.json"}.items()
    }


def cheap_model():
    """Maps of a sixteenth of the cells."""
    load_entries()
    model = small_model()
    model.trunk = TRUNKS.build(RESNET, "trunk")
    return model


def bench_in(folder, model=None):
    notes = []
    model = model or small_model()
    bench = Bench(
        model, Labelled(), {}, device=CPU, numerics=FP32, folder=folder, note=notes.append
    )
    return bench, notes


def read_test(folder, masks=True):
    given = folder / "test"
    return read(str(given / "images"), str(given / "annotations.json"), masks, "here", "images")


# ---------------------------------------------------------------- average precision


def guesses(coco):
    """Every object, moved and doubted, some of another category, and boxes from nowhere."""
    rng, rows = np.random.default_rng(0), []
    for entry in coco.objects * 2:
        moved = np.clip(np.add(entry["bbox"], rng.normal(0, 2, 4)), 0, 30).round(2)
        left, top, width, height = np.maximum(moved, [0, 0, 3, 3]).tolist()
        mask = np.zeros((48, 48), np.uint8)
        mask[int(top) : int(top + height), int(left) : int(left + width)] = 1
        mask &= decoded(entry["segmentation"], (48, 48), "here") | (rng.random((48, 48)) < 0.1)
        category = entry["category_id"] if rng.random() < 0.8 else int(rng.choice([10, 20, 30]))
        rows.append(
            {
                "image_id": entry["image_id"],
                "category_id": category,
                "bbox": [left, top, width, height],
                "score": float(rng.random()),
                "segmentation": encode(mask),
            }
        )
    return rows


def encode(mask):
    from pycocotools import mask as tools

    found = tools.encode(np.asfortranarray(mask))
    return {"size": found["size"], "counts": found["counts"].decode()}


def test_average_precision_is_its_definition(folder):
    coco = read_test(folder)
    assert any(entry["iscrowd"] for entry in coco.objects)
    rows = guesses(coco)
    expected = naive_scores(coco, rows, masks=True)
    assert average_precision(coco, rows, masks=True) == pytest.approx(expected, abs=1e-9)
    assert all(0.1 < expected[f"{kind}_ap"] < 0.9 for kind in ("box", "mask"))


def test_perfect_and_no_detections(folder):
    coco = read_test(folder)
    rows = [{**entry, "score": 0.5} for entry in copy.deepcopy(coco.objects)]
    assert set(average_precision(coco, rows, masks=True).values()) == {1.0}
    assert set(average_precision(coco, [], masks=True).values()) == {0.0}


# ---------------------------------------------------------------- training


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    bench, notes = bench_in(run)
    before = copy.deepcopy(bench.model.state_dict())
    torch.manual_seed(5)
    metrics = Detection(**files(folder), **SMALL, iterations=60, seed=2).evaluate(bench)
    return metrics, notes, run, (before, bench.model.state_dict())


def test_it_learns(trained):
    metrics, notes, _, _ = trained
    assert metrics["box_ap50"] > 0.2
    assert metrics["mask_ap50"] > 0.15
    losses = [float(n.split("loss ")[1].split(",")[0]) for n in notes if "iteration" in n]
    assert len(losses) == 10
    assert losses[-1] < 0.7 * losses[0]


def test_detections_are_left_in_cocos_format(trained, folder):
    metrics, _, run, _ = trained
    rows = json.loads((run / "evaluations" / "detection" / "detections.json").read_text())
    assert set(rows[0]) == {"image_id", "category_id", "bbox", "score", "segmentation"}
    assert {row["category_id"] for row in rows} <= {10, 20, 30}
    again = average_precision(read_test(folder), rows, masks=True)
    assert again == metrics


def test_model_and_random_state_are_left_as_they_were(trained):
    before, after = trained[3]
    assert all(torch.equal(before[name], after[name]) for name in before)


def few_steps(rank, world, folder, seed):
    """Scores, and the weights that led to them."""
    torch.manual_seed(rank + 10)
    given = files(folder, "few", "few")
    seen, (bench, _) = [], bench_in(None, cheap_model())
    entry = Detection(**given, **SMALL, iterations=2, masks=False, seed=seed)
    detect = entry._detect

    def spied(network, coco, bench):
        seen.append([p.double().sum().item() for p in network.parameters()])
        return detect(network, coco, bench)

    entry._detect = spied
    return entry.evaluate(bench), seen[0]


def test_deterministic_by_seed(folder):
    first, again, other = (few_steps(0, 1, folder, seed) for seed in (0, 0, 1))
    assert first == again
    assert first[1] != other[1]


def test_processes_have_the_same_weights_and_scores(folder):
    first, second = run_ranks(few_steps, 2, folder, 0)
    assert first == second


def test_a_vision_transformer_trains_and_goes_on_after_a_stop(folder, tmp_path):
    """With the same detections as without the stop; the model keeps its weights."""
    load_entries()
    trunk = TRUNKS.build({"name": "vit", "size": "tiny", "image_size": 32}, "trunk")
    before = copy.deepcopy(trunk.state_dict())
    entry = Detection(**files(folder, "few", "few"), **SMALL, iterations=3, masks=False)

    def bench_of(name):
        model = small_model()
        model.trunk = trunk
        return bench_in(tmp_path / name, model)

    def left(name):
        return (tmp_path / name / "evaluations/detection/detections.json").read_text()

    bench, notes = bench_of("whole")
    entry.evaluate(bench)
    assert "detection: simple feature pyramid on patches; strides 4, 8, 16, 32, 64" in notes
    bench, notes = bench_of("stopped")
    bench.stop_point = stop_after(2)
    with pytest.raises(Stopped):
        entry.evaluate(bench)
    bench.stop_point = lambda: None
    entry.evaluate(bench)
    assert notes.count("detection: goes on after iteration 2") == 1
    assert left("stopped") == left("whole") != "[]\n"
    assert all(torch.equal(before[name], t) for name, t in trunk.state_dict().items())


# ---------------------------------------------------------------- data


def pictures(folder, **changes):
    settings = {"training": True, "masks": True, "flip": True, "seed": 0, "place": PLACE}
    return Pictures(read_test(folder), **{**settings, **changes})


def test_boxes_and_masks_move_with_the_image(folder):
    """The exact box of every whole object is that of its mask, flipped or not."""
    data = pictures(folder)
    straight = pictures(folder, flip=False)
    flipped = 0
    for index in range(len(data)):
        ((found,), (plain,)) = (d[[Place(index, 0, index)]] for d in (data, straight))
        mirrored = not torch.equal(found.image_CHW, plain.image_CHW)
        flipped += mirrored
        if mirrored:
            assert torch.equal(found.image_CHW.flip(-1), plain.image_CHW)
        for box, mask in zip(found.target["boxes"].tolist(), found.target["masks"]):
            rows, columns = mask.nonzero().unbind(1)
            exact = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box == [float(value) for value in exact]
    assert 0 < flipped < len(data)


def test_training_leaves_out_crowds_and_empty_images(folder):
    coco = read_test(folder)
    objects = [entry for entry in coco.objects if not entry["iscrowd"]]
    data = pictures(folder)
    assert len(data) == len({entry["image_id"] for entry in objects}) < len(coco.images)
    found = [data[[Place(i)]][0] for i in range(len(data))]
    assert sum(len(picture.target["labels"]) for picture in found) == len(objects)
    assert len(pictures(folder, training=False)) == len(coco.images)


def test_every_epoch_shows_every_image_once():
    order = [place for batch in training_order(7, 4, 7, seed=3) for place in batch]
    for epoch in range(4):
        shown = [place.index for place in order if place.epoch == epoch]
        assert sorted(shown) == list(range(7))
    assert [p.index for p in order[:7]] != [p.index for p in order[7:14]]
    assert [p.index for batch in once_each(7, 3) for p in batch] == list(range(7))


def test_the_1x_schedule():
    at = [warm_steps(s, 0.02, 90_000, 1000) for s in (0, 500, 1000, 59_999, 60_000, 80_000)]
    assert at == pytest.approx([2e-5, 0.01001, 0.02, 0.02, 0.002, 0.0002])


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size: 0; needs 1 or more"),
        ({"layers": ("res2", "res3", "res4", "res9")}, "layers: 'res9' is no map of the trunk"),
        ({"freeze_until": "res9"}, "freeze_until: 'res9' is no map of the trunk"),
    ],
)
def test_settings_that_do_not_fit_are_told_before_training(folder, changes, message):
    with pytest.raises(ConfigError, match=message):
        Detection(**files(folder, "few", "few"), **{**SMALL, **changes}).check(
            bench_in(None, cheap_model())[0]
        )


def test_other_annotations_begin_anew(folder, tmp_path):
    """Of the same name, with one box moved."""
    given = shutil.copytree(folder / "few", tmp_path / "few") / "annotations.json"
    entry = Detection(**files(tmp_path, "few", "few"), **SMALL, iterations=3, masks=False)
    bench, notes = bench_in(tmp_path / "run", cheap_model())
    bench.stop_point = stop_after(2)
    with pytest.raises(Stopped):
        entry.evaluate(bench)
    content = json.loads(given.read_text())
    next(e for e in content["annotations"] if not e.get("iscrowd"))["bbox"][2] -= 0.5
    given.write_text(json.dumps(content))
    bench.stop_point = stop_after(1)
    with pytest.raises(Stopped):
        entry.evaluate(bench)
    assert not any("goes on" in note for note in notes)


@pytest.fixture
def one(tmp_path):
    """A folder with one image, and annotations to spoil."""
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    Image.new("RGB", (20, 10)).save(tmp_path / "b.png")
    images = [{"id": i, "file_name": f"{n}.png", "width": 20, "height": 10} for i, n in [(1, "a")]]
    images.append({"id": 2, "file_name": "b.png", "width": 20, "height": 10})
    box = {"image_id": 1, "category_id": 3, "bbox": [1, 2, 5, 4]}
    box["segmentation"] = [[1, 2, 6, 2, 6, 6, 1, 6]]
    content = {"images": images, "annotations": [box], "categories": [{"id": 3, "name": "cat"}]}

    def reader(masks=True):
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(content))
        return read(str(tmp_path), str(path), masks, "annotations_train", "images_train")

    return content, reader


def test_what_may_be_missing(one):
    content, reader = one
    content["annotations"].append({**content["annotations"][0], "bbox": [30, 2, 5, 4]})
    content["annotations"].append({**content["annotations"][0], "bbox": [3, 2, 0, 4]})
    del content["annotations"][0]["segmentation"]
    found = reader(masks=False)
    assert (len(found.images), len(found.objects), found.thin) == (2, 1, 2)
    assert found.objects[0]["area"] == 20
    assert found.objects[0]["iscrowd"] == 0
    assert found.objects[0]["id"] == 1  # pycocotools takes a match with 0 for none


def spoil(content, change):
    """Applies "annotations.0.bbox" -> value; None deletes."""
    for path, value in change.items():
        *way, last = (int(part) if part.isdecimal() else part for part in path.split("."))
        at = content
        for part in way:
            at = at[part]
        if value is None:
            del at[last]
        else:
            at[last] = value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categories": None}, "has no list 'categories'; give a file in COCO's format"),
        ({"annotations.0.image_id": 7}, r"annotations\[0\]: image_id 7 is not among the images"),
        ({"annotations.0.category_id": 1}, "category_id 1 is not among the categories"),
        ({"annotations.0.bbox": None}, r"annotations\[0\]: has no 'bbox'"),
        ({"annotations.0.bbox": [1, 2, 3]}, r"bbox \[1, 2, 3\] is no list of four numbers"),
        ({"annotations.0.bbox": [1, 2, 0, 3]}, "has no object with a box that is no crowd"),
        ({"annotations.0.segmentation": None}, "has no 'segmentation'; detection does without"),
        ({"annotations.0.segmentation": [[1, 2, 3, 4]]}, "is no list of polygons, each of three"),
        ({"annotations.0.segmentation": {"counts": "0"}}, "is neither polygons nor runs with"),
        (
            {"annotations.0.segmentation": {"size": [10, 20], "counts": [100, 99]}},
            "its runs are not those of an image of 20 x 10 pixels",
        ),
        (
            {"annotations.0.segmentation": {"size": [10, 20], "counts": "garbage~~"}},
            "its runs are not those of an image of 20 x 10 pixels",
        ),
        (
            {"annotations.0.segmentation": {"size": [10, 20], "counts": [201, -1]}},
            r"counts \[201, -1\] are no lengths of runs",
        ),
        ({"annotations.0.iscrowd": 2}, "iscrowd 2 is no 0 or 1"),
        ({"images.0.width": 0}, r"images\[0\]: width 0 is no whole number above 0"),
        ({"images.1.id": 1}, r"images\[1\]: id 1 is there twice"),
        ({"images.0.file_name": "../a.png"}, r"file_name '../a.png' is no path inside the folder"),
        ({"images.0.file_name": "/a.png"}, r"file_name '/a.png' is no path inside the folder"),
        ({"images.0.file_name": "c.png"}, r"images_train: 1 of 2 images are not in .* \(c.png\)"),
        ({"images.0.width": 21}, "images_train: 1 of 2 images have not the width and height"),
    ],
)
def test_mistakes_in_annotations(one, change, message):
    content, reader = one
    spoil(content, change)
    with pytest.raises(ConfigError, match=message):
        reader()


def test_runs_as_a_string_are_read_as_pycocotools_writes_them(one):
    content, reader = one
    mask = np.random.default_rng(0).random((10, 20)) < 0.5
    content["annotations"][0]["segmentation"] = encode(mask.astype(np.uint8))
    assert (decoded(reader().objects[0]["segmentation"], (10, 20), "here") == mask).all()


def test_unreadable_images_are_told(folder, tmp_path):
    shutil.copytree(folder / "few", tmp_path / "few")
    (tmp_path / "few" / "images" / f"000{BROKEN}.png").write_bytes(b"no image")
    bench, notes = bench_in(None, cheap_model())
    Detection(**files(tmp_path, "few", "few"), **SMALL, iterations=2, masks=False).evaluate(bench)
    told = [note for note in notes if "cannot be read" in note]
    assert told == [
        f"detection: 1 images of images_train cannot be read: 000{BROKEN}.png",
        f"detection: 1 images of images_test cannot be read: 000{BROKEN}.png",
    ]


def test_no_readable_image_to_train_on(folder, tmp_path):
    shutil.copytree(folder / "few", tmp_path / "few")
    for file in (tmp_path / "few" / "images").iterdir():
        file.write_bytes(b"no image")
    bench, _ = bench_in(None, cheap_model())
    with pytest.raises(ConfigError, match=r"images_train: not one image can be read, such as 00"):
        Detection(**files(tmp_path, "few", "few"), **SMALL, iterations=2).evaluate(bench)


def test_categories_must_be_the_same(folder, tmp_path):
    given = files(folder)
    content = json.loads((folder / "test" / "annotations.json").read_text())
    content["categories"][0]["name"] = "another"
    (tmp_path / "other.json").write_text(json.dumps(content))
    given["annotations_test"] = str(tmp_path / "other.json")
    with pytest.raises(ConfigError, match=r"annotations_test: its categories are not those of"):
        Detection(**given)


def test_builds_from_a_config(folder):
    given = {**files(folder), "masks": False, "train_sizes": [64, 96]}
    built = EVALUATIONS.build(given, "evaluations.detection")
    assert built.train_sizes == (64, 96)
    assert built.brings_images
    with pytest.raises(ConfigError, match=r"evaluations\.detection\.hidden: 0; needs 1 or more"):
        Detection(**files(folder), hidden=0)
