"""Which way images take, why, and that a resumed run takes the same."""

import numpy as np
import pytest
import torch
from data.some_sources import Numbers

from vissl_lite import SOURCES, ConfigError
from vissl_lite.config import Data
from vissl_lite.data import choose, place
from vissl_lite.data.choose import make_dataset
from vissl_lite.data.dataset import ViewDataset
from vissl_lite.data.resident import MemoryDataset
from vissl_lite.data.sampler import Order, Request
from vissl_lite.data.views import Views
from vissl_lite.plugins import load_entries

load_entries()
CPU = torch.device("cpu")
COLOURS = ["random_resized_crop", "random_horizontal_flip", "color_jitter"]
PILLOW_ONLY = ["random_resized_crop", "rand_augment"]


def made(source=None, transforms=COLOURS, chosen=None, steps=0, **settings):
    source = source or SOURCES.build({"name": "digits", "split": "test"})
    views = Views.build([{"count": 2, "size": 16, "transforms": transforms}])
    data = Data(source={}, **settings)
    order = Order([len(source)])
    return make_dataset(data, source, views, order, 0, CPU, 2, 10, steps, chosen)


def test_small_images_that_a_source_holds_stay_in_memory():
    dataset, way = made()
    assert isinstance(dataset, MemoryDataset)
    assert str(way) == ("fast back end, all images in memory (359 images of 8x8 fit in memory)")


@pytest.mark.parametrize(
    ("settings", "transforms"),
    [
        ({"in_memory": False}, COLOURS),
        ({"augment_on": "worker"}, COLOURS),
        ({"resize": "linear"}, COLOURS),
        ({}, PILLOW_ONLY),
        ({"backend": "reference"}, COLOURS),
    ],
)
def test_what_keeps_them_out_of_memory(settings, transforms):
    assert isinstance(made(transforms=transforms, **settings)[0], ViewDataset)


def test_images_larger_than_the_limit_are_not_put_on_the_device(monkeypatch):
    monkeypatch.setattr(choose, "LARGEST_IN_MEMORY", 1000)
    assert isinstance(made()[0], ViewDataset)


def test_a_source_of_files_is_decoded_into_memory_only_on_demand():
    assert isinstance(made(Numbers())[0], ViewDataset)
    dataset, way = made(Numbers(), in_memory=True)
    assert isinstance(dataset, MemoryDataset)
    assert way.reason == "as given"


def test_a_transform_without_a_batch_form_cannot_be_in_memory():
    with pytest.raises(ConfigError, match=r"data.in_memory: RandAugment works on one image"):
        made(transforms=PILLOW_ONLY, in_memory=True)


@pytest.mark.parametrize(("where", "left"), [("worker", False), ("device", True)])
def test_colours_go_where_they_are_told(where, left):
    dataset, way = made(Numbers(), augment_on=where)
    assert way.colours == where
    assert dataset.views.leaves_work == left


@pytest.mark.parametrize(
    ("device_s", "chosen"), [(1.0, "worker"), (0.5, "worker"), (0.01, "device")]
)
def test_auto_takes_the_device_only_if_it_is_clearly_cheaper(monkeypatch, device_s, chosen):
    """On a CPU the worker costs 0.4 s for the colours of a batch of 10; two workers share them."""
    times = iter([0.4, device_s])
    monkeypatch.setattr(place, "_best", lambda clock, call: next(times))
    way = made(Numbers())[1]
    assert way.colours == ("device" if device_s * place.MARGIN < 0.2 else "worker") == chosen
    assert way.reason == (
        "measured, ms/image of flips and colours: worker 20.00 (10 images, CPU time over 2"
        f" processes), device {100 * device_s:.2f} (10 images)"
    )


def test_auto_measures_and_says_what_it_found():
    way = made(Numbers())[1]
    assert way.colours in ("worker", "device")
    assert way.reason.startswith("measured, ms/image of flips and colours: worker ")


def test_what_is_measured_as_the_workers_part_is_what_a_worker_does(monkeypatch):
    """The crops that it leaves in its memory are those of a worker, to a rounding."""
    left = []
    monkeypatch.setattr(place.np, "empty_like", lambda x: left.append(x.copy()) or left[-1])
    source = SOURCES.build({"name": "digits", "split": "test"})
    worker, device = (made(source, in_memory=False, augment_on=w)[0] for w in ("worker", "device"))
    request = Request(0, 0, np.arange(4))
    place._by_worker(device.views, device[request])()
    found = torch.from_numpy(np.stack(left)).unflatten(0, (2, 4))
    gap = (found.int() - worker[request].views[0].int()).abs()
    assert not torch.equal(found, device[request].views[0])
    assert gap.float().mean() < 0.01


@pytest.mark.parametrize(
    ("device", "batch_size", "compiled_for", "images"),
    [
        ("cpu", 2000, 0, 256),
        ("cpu", 64, 0, 64),
        ("cuda", 2000, 0, 256),
        ("cuda", 2000, 2000, 2000),
    ],
)
def test_the_device_gets_as_many_images_as_in_the_run(device, batch_size, compiled_for, images):
    dataset = made(Numbers(), augment_on="device")[0]
    dataset.compiled_for = compiled_for
    assert place._at_once(dataset, torch.device(device), batch_size) == images
    dataset.views.sizes = [224]
    if device == "cpu":
        assert place._at_once(dataset, torch.device(device), batch_size) == 5


def test_a_resumed_run_takes_the_same_way():
    for settings in ({}, {"augment_on": "device"}):
        way = made(Numbers(), **settings)[1]
        again = made(Numbers(), chosen=way.state_dict())[1]
        assert again == way
    memory = made()[1]
    assert isinstance(made(chosen=memory.state_dict())[0], MemoryDataset)


def test_long_runs_compile_what_is_in_memory(monkeypatch):
    monkeypatch.setattr(choose, "worth_compiling", lambda device, crops, size: crops > 1000)
    monkeypatch.setattr(choose, "MemoryDataset", lambda *args: args)
    assert not made(steps=50)[1].compiled
    args, way = made(steps=51)
    assert way.compiled
    assert args[-1] == 10


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"resize": "linear"}, r"^data.resize: linear is for images that are not in memory"),
        ({"augment_on": "worker"}, r"^data.augment_on: images in memory are on the device"),
    ],
)
def test_what_images_in_memory_cannot_do_is_said(settings, text):
    with pytest.raises(ConfigError, match=text):
        made(in_memory=True, **settings)


@pytest.mark.parametrize(
    "settings", [{"resize": "linear"}, {"in_memory": True}, {"augment_on": "device"}]
)
def test_what_the_reference_cannot_do_is_said(settings):
    (setting,) = settings
    text = rf"^data.{setting}: the reference .*; set data.{setting}=a\w+ or data.backend=fast$"
    with pytest.raises(ConfigError, match=text):
        made(backend="reference", **settings)


@pytest.mark.parametrize("settings", [{}, {"in_memory": False, "augment_on": "worker"}])
def test_what_the_reference_does_anyway_may_be_asked_for(settings):
    dataset, way = made(backend="reference", **settings)
    assert isinstance(dataset, ViewDataset)
    assert way == choose.Way("reference", "worker", "as given")
