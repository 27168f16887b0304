"""Images in memory: the batches that the reference makes of the same source."""

import numpy as np
import pytest
import torch
from data.some_sources import Numbers

from vissl_lite import SOURCES, ConfigError
from vissl_lite.data.batch import Sample, Tags
from vissl_lite.data.dataset import ViewDataset
from vissl_lite.data.loader import Loader
from vissl_lite.data.resident import MemoryDataset, held_images
from vissl_lite.data.sampler import Order, Request, StepSampler
from vissl_lite.data.views import Views
from vissl_lite.plugins import load_entries

load_entries()
CPU = torch.device("cpu")
GROUPS = [
    {
        "count": count,
        "size": size,
        "transforms": [
            {"name": "resize", "short_side": 20},
            "random_affine",
            "random_resized_crop",
            "color_jitter",
            "gaussian_blur",
        ],
    }
    for count, size in ((2, 16), (3, 8))
]
WHOLE = [{"count": 2, "size": 12, "transforms": []}]
SOURCES_HELD = {
    "digits": {"name": "digits", "split": "test"},
    "digits_tags": {"name": "digits_tags", "n": 50},
    "torchvision": {"name": "torchvision", "dataset": "FakeData", "split": None},
}


def pair(config, groups=GROUPS):
    """The dataset in memory and the reference."""
    source = SOURCES.build(config)
    views, order = Views.build(groups), Order([len(source)])
    memory = MemoryDataset(source, held_images(source), views, order, 3, CPU)
    return memory, ViewDataset(source, views, order, 3)


@pytest.mark.parametrize("name", ["digits", "digits_tags"])
def test_batches_are_those_of_the_reference(name):
    memory, reference = pair(SOURCES_HELD[name])
    request = Request(7, 1, np.arange(20, 44))
    ours, theirs = memory[request], reference[request]
    for a, b in zip(ours.views, theirs.views):
        assert a.shape == b.shape
        assert a.dtype == torch.uint8
        assert (a.float() - b.float()).abs().mean() < 0.5
    assert torch.equal(ours.index_B, theirs.index_B)
    assert ours.step == 7
    if theirs.label_B is not None:
        assert torch.equal(ours.label_B, theirs.label_B)
    if theirs.tags is not None:
        assert torch.equal(ours.tags.values_T, theirs.tags.values_T)
        assert torch.equal(ours.tags.offsets, theirs.tags.offsets)


@pytest.mark.parametrize(("world", "start"), [(2, 0), (3, 4)])
def test_same_bytes_for_any_ranks_and_start(world, start):
    memory, _ = pair(SOURCES_HELD["digits"])

    def views(rank, world, start):
        sampler = StepSampler(len(memory.order), 12, 6, start=start, rank=rank, world=world)
        return [batch.views[1] for batch in Loader(memory, sampler, CPU, workers=2)]

    whole = views(0, 1, 0)[start:]
    parts = [torch.cat(ranks, 1) for ranks in zip(*(views(r, world, start) for r in range(world)))]
    assert len(whole) == len(parts) == 6 - start
    assert all(torch.equal(a, b) for a, b in zip(whole, parts))


def test_images_of_files_are_decoded_once():
    memory = MemoryDataset(Numbers(), None, Views.build(WHOLE), Order([24]), 0, CPU)
    batch = memory[Request(0, 0, np.arange(24))]
    assert batch.views[0][1, :, 3, 4, 2].tolist() == batch.index_B.tolist()
    assert batch.label_B is None
    assert batch.tags is None


class Files:
    num_classes = classes = None

    def __init__(self, *images):
        self.held = images

    def __len__(self):
        return len(self.held)

    def __getitem__(self, index):
        return Sample(self.held[index], name=f"file-{index}")


@pytest.mark.parametrize(
    ("second", "text"),
    [
        (np.zeros((9, 12, 3), np.uint8), "file-1 has 12x9 pixels and the first image 12x12"),
        (b"no image", "file-1: cannot be read, Pillow does not know its format"),
    ],
)
def test_what_does_not_fit_is_named(second, text):
    source = Files(np.zeros((12, 12, 3), np.uint8), second)
    with pytest.raises(ConfigError, match=f"^data.in_memory: {text}.*data.in_memory=false"):
        MemoryDataset(source, None, Views.build(WHOLE), Order([2]), 0, CPU)


def test_arrays_of_torchvision(monkeypatch):
    """CIFAR holds [N, 32, 32, 3], MNIST a tensor [N, 28, 28], SVHN [N, 3, 32, 32]."""
    source = SOURCES.build(SOURCES_HELD["torchvision"])
    assert held_images(source) is None
    rng = np.random.default_rng(0)
    nhwc = rng.integers(0, 256, (4, 6, 6, 3), np.uint8)
    for held in (nhwc, nhwc.transpose(0, 3, 1, 2)):
        source.dataset.data = held
        np.testing.assert_array_equal(held_images(source), nhwc)
    source.dataset.data = torch.from_numpy(nhwc[..., 0])
    np.testing.assert_array_equal(held_images(source), nhwc[..., 0])
    source.dataset.data = nhwc.astype(float)
    assert held_images(source) is None


def test_tags_of_some_images():
    tags = Tags.pack([[3, 1], [], [2], [5, 4, 9]])
    some = tags.select(torch.tensor([3, 1, 0, 3]))
    assert some.values_T.tolist() == [4, 5, 9, 1, 3, 4, 5, 9]
    assert some.offsets.tolist() == some.bounds == [0, 3, 3, 5, 8]


def test_grey_arrays_are_shown_in_three_channels():
    memory = MemoryDataset(
        Files(), np.full((2, 12, 12), 7, np.uint8), Views.build(WHOLE), Order([2]), 0, CPU
    )
    assert memory[Request(0, 0, np.arange(2))].views[0].unique().tolist() == [7]
