"""The contact sheet shows what training saw; words against the numbers of the transforms."""

import numpy as np
import pytest
import torch
from PIL import Image

from vissl_lite.config import check
from vissl_lite.data.sampler import Order, Request
from vissl_lite.data.views import Views
from vissl_lite.engine.build import build_source, build_views
from vissl_lite.engine.checkpoint import read
from vissl_lite.engine.parts import Parts
from vissl_lite.report.draws import drawn
from vissl_lite.report.runs import Run
from vissl_lite.report.sheet import Few, _batch, sheet


@pytest.mark.parametrize("in_memory", [True, False])
def test_crops_are_those_of_the_first_step(run_dir, in_memory):
    run = Run.read(run_dir)
    tree = {**run.tree, "data": {**run.tree["data"], "in_memory": in_memory}}
    config = check(tree)
    parts = Parts(config, torch.device("cpu"))
    seen = parts.dataset.finish(parts.dataset[Request(0, 0, np.arange(4))])
    source = build_source(config)
    indices = Order.of(source, config.seed).indices(0, np.arange(4))
    shown = _batch(config, Few(source, indices), build_views(config), parts.way.state_dict())
    assert len(shown.views) == len(seen.views) == 1
    assert torch.equal(shown.views[0], seen.views[0])


def test_a_sheet_has_every_crop_of_four_images(run_dir):
    run = Run.read(run_dir)
    text = sheet(run.config, read(run.checkpoint / "state.pt")["way"])
    assert text.count("<img") == 4 * 2
    assert text.count("<svg") == 4
    assert text.count("<rect") == 4 * 2  # what random_resized_crop cuts
    assert text.count("random_resized_crop: ") == 8


def test_boxes_are_spoken_of_where_there_are_some(run_dir):
    run = Run.read(run_dir)
    assert "the whole image, with the boxes that the crops are made of." in sheet(run.config)
    view = {"count": 2, "size": 16, "transforms": [{"name": "resize", "short_side": 16}]}
    data = {**run.tree["data"], "views": [view]}
    text = sheet(check({**run.tree, "data": data}))
    assert "First the whole image.</p>" in text
    assert "<rect" not in text


def test_words_say_what_was_done_to_the_image():
    names = [
        {"name": "random_resized_crop", "scale": [0.2, 0.2], "ratio": [1.0, 1.0]},
        {"name": "random_horizontal_flip", "p": 1.0},
        {"name": "color_jitter", "brightness": 0.4, "p": 1.0},
        {"name": "gaussian_blur", "p": 1.0, "sigma": [1.5, 1.5]},
        {"name": "random_grayscale", "p": 0.0},
    ]
    views = Views.build([{"size": 20, "transforms": names}])
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 50, 3), np.uint8))
    said = drawn(views, views.draw(0, 0, np.arange(1)), image, 0, 0, 0)
    assert said[0].startswith("random_resized_crop: 32 x 32 pixels at (")  # sqrt(0.2 * 5000) = 31.6
    assert said[0].endswith(", 20%")
    assert said[1] == "random_horizontal_flip: flipped"
    assert said[2].startswith("color_jitter: brightness x ")
    assert said[3:] == ["gaussian_blur: sigma 1.50 pixels", "random_grayscale: nothing"]


@pytest.mark.parametrize(
    ("config", "start"),
    [
        ({"name": "random_affine", "degrees": 30}, "random_affine: turned "),
        ({"name": "random_rotation", "degrees": 30}, "random_rotation: turned "),
        ({"name": "rand_augment"}, "rand_augment: "),
        ({"name": "random_erasing", "p": 0.0}, "random_erasing: nothing"),
        ({"name": "solarize", "p": 1.0, "threshold": 99}, "solarize: above 99"),
        ({"name": "posterize", "p": 1.0, "bits": 3}, "posterize: to 3 bits"),
        ({"name": "center_crop"}, "center_crop: 16 x 16 pixels at (8, 8), 25%"),
    ],
)
def test_words_of_the_others(config, start):
    views = Views.build([{"size": 16, "transforms": [config]}])
    image = Image.new("RGB", (32, 32))
    [said] = drawn(views, views.draw(0, 0, np.arange(1)), image, 0, 0, 0)
    assert said.startswith(start)
