"""The stream of batches is the same bytes for any workers and ranks, and after a resume."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from vissl_lite import SOURCES
from vissl_lite.data.batch import Sample, Tags
from vissl_lite.data.loader import Loader, ViewDataset
from vissl_lite.data.sampler import Order, StepSampler
from vissl_lite.data.views import Views
from vissl_lite.errors import ConfigError
from vissl_lite.plugins import load_entries

CPU = torch.device("cpu")
BATCH, STEPS, SEED = 12, 7, 5
VIEWS = [
    {
        "count": count,
        "size": size,
        "transforms": [
            {"name": "random_resized_crop", "scale": [0.1, 1.0]},
            "random_horizontal_flip",
            "color_jitter",
            "random_grayscale",
            "gaussian_blur",
        ],
    }
    for count, size in [(2, 16), (3, 8)]
]


def dataset(source=None):
    load_entries()
    source = source or SOURCES.build({"name": "digits", "split": "test"})
    return ViewDataset(source, Views.build(VIEWS), Order.of(source, SEED), SEED)


def digest(batches):
    """One hash per step, over everything in the global batch."""
    hashes = []
    for ranks in zip(*batches):
        h = hashlib.sha256()
        for g in range(len(VIEWS)):
            h.update(torch.cat([b.views[g] for b in ranks], dim=1).numpy().tobytes())
        h.update(torch.cat([b.index_B for b in ranks]).numpy().tobytes())
        h.update(torch.cat([b.label_B for b in ranks]).numpy().tobytes())
        hashes.append((ranks[0].step, h.hexdigest()))
    return hashes


def stream(workers, world, start):
    data = dataset()
    samplers = [
        StepSampler(len(data.order), BATCH, STEPS, start=start, rank=r, world=world)
        for r in range(world)
    ]
    return digest([list(Loader(data, sampler, CPU, workers)) for sampler in samplers])


@pytest.fixture(scope="module")
def reference():
    return stream(workers=0, world=1, start=0)


@pytest.mark.parametrize("start", [0, 4])
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_same_bytes_for_any_workers_ranks_and_start(reference, workers, world, start):
    assert stream(workers, world, start) == reference[start:]


def test_epochs_and_seeds_differ(reference):
    assert len({h for _, h in reference}) == STEPS


def test_any_step_can_be_made_again():
    data = dataset()
    sampler = StepSampler(len(data.order), BATCH, STEPS, start=0, rank=0, world=1)
    loader = Loader(data, sampler, CPU, workers=0)
    fourth = list(loader)[3]
    again = loader.batch_of(3)
    assert all(torch.equal(a, b) for a, b in zip(fourth.views, again.views))


class Files:
    """Ten images, some of them broken."""

    num_classes, classes = 2, None

    def __init__(self, folder, broken):
        self.folder = folder
        rng = np.random.default_rng(0)
        for i in range(10):
            pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
        for i in broken:
            (folder / f"{i}.png").write_bytes(b"not an image")

    def __len__(self):
        return 10

    def __getitem__(self, i):
        return Sample(self.folder / f"{i}.png", label=i % 2, name=f"{i}.png")


def test_a_broken_image_is_named_and_replaced_by_the_next_good_one(tmp_path):
    data = dataset(Files(tmp_path, broken=[3, 4]))
    sampler = StepSampler(10, 10, 1, start=0, rank=0, world=1)
    (batch,) = Loader(data, sampler, CPU, workers=0)
    assert sorted(batch.index_B.tolist()) == [0, 1, 2, 5, 5, 5, 6, 7, 8, 9]
    assert batch.label_B.tolist() == [i % 2 for i in batch.index_B.tolist()]
    assert sorted({name.split(":")[0] for name in batch.broken}) == ["3.png", "4.png"]


def test_a_source_of_nothing_but_broken_images_stops(tmp_path):
    data = dataset(Files(tmp_path, broken=range(10)))
    sampler = StepSampler(10, 10, 1, start=0, rank=0, world=1)
    with pytest.raises(ConfigError, match="in a row cannot be read"):
        list(Loader(data, sampler, CPU, workers=0))


def test_tags_stay_ragged_and_are_sliced_with_their_images():
    tags = Tags.pack([[3, 1, 3], [], [2]])
    assert tags.values_T.tolist() == [1, 3, 2]  # each tag once per image
    assert tags.offsets.tolist() == [0, 2, 2, 3]
    assert tags.rows_T().tolist() == [0, 0, 2]
    part = tags.slice(1, 3)
    assert (part.values_T.tolist(), part.offsets.tolist()) == ([2], [0, 0, 1])
