"""The stream of batches is the same bytes for any workers and ranks, and after a resume."""

import functools
import hashlib
import itertools
import os

import numpy as np
import pytest
import torch
from data.some_sources import Numbers
from PIL import Image

from vissl_lite import SOURCES
from vissl_lite.data.batch import Batch, Sample, Tags
from vissl_lite.data.dataset import ViewDataset
from vissl_lite.data.fast import FastViews
from vissl_lite.data.loader import Loader, choose_workers
from vissl_lite.data.sampler import Order, StepSampler
from vissl_lite.data.views import Views
from vissl_lite.errors import ConfigError, WorkerDied
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


BACKENDS = {
    "reference": lambda views: views,
    "worker": lambda views: FastViews(views, on_device=False),
    "device": lambda views: FastViews(views, on_device=True),
}


def dataset(source=None, backend="reference", views=VIEWS):
    load_entries()
    source = source or SOURCES.build({"name": "digits", "split": "test"})
    chosen = BACKENDS[backend](Views.build(views))
    return ViewDataset(source, chosen, Order.of(source, SEED), SEED)


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


def stream(workers, world, start, backend="reference"):
    data = dataset(backend=backend)
    samplers = [
        StepSampler(len(data.order), BATCH, STEPS, start=start, rank=r, world=world)
        for r in range(world)
    ]
    return digest([list(Loader(data, sampler, CPU, workers)) for sampler in samplers])


@pytest.fixture(scope="module")
def whole():
    """The stream of one process without workers, from the start, of each back end."""
    return functools.cache(lambda backend: stream(workers=0, world=1, start=0, backend=backend))


CELLS = list(itertools.product([0, 1, 2], [1, 2, 3], [0, 4]))  # workers, ranks, start
SOME = [(0, 2, 0), (0, 3, 4), (1, 1, 4), (2, 3, 0)]


@pytest.mark.parametrize(
    ("backend", "workers", "world", "start"),
    [
        (backend, *cell)
        for backend in BACKENDS
        for cell in (CELLS if backend == "reference" else SOME)
    ],
)
def test_same_bytes_for_any_workers_ranks_and_start(whole, backend, workers, world, start):
    assert stream(workers, world, start, backend) == whole(backend)[start:]


def test_epochs_and_seeds_differ(whole):
    assert len({h for _, h in whole("reference")}) == STEPS


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_step_can_be_made_again(backend):
    data = dataset(backend=backend)
    sampler = StepSampler(len(data.order), BATCH, STEPS, start=0, rank=0, world=1)
    loader = Loader(data, sampler, CPU, workers=0)
    fourth = list(loader)[3]
    again = loader.batch_of(3)
    assert all(torch.equal(a, b) for a, b in zip(fourth.views, again.views))


# ---------------------------------------------------------------- worker processes


WHOLE = [{"count": 2, "size": 12, "transforms": []}]


def numbers(harm="", workers=2, steps=12, size=24):
    data = dataset(Numbers(size, harm), "worker", WHOLE)
    return Loader(data, StepSampler(size, 2, steps, start=0, rank=0, world=1), CPU, workers)


def values(batch):
    return batch.views[0][0, :, 0, 0, 0].tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_is_kept_does_not_change(workers):
    """More batches at a time than there are slots."""
    kept = list(numbers(workers=workers, steps=30))
    assert len(kept) == 30
    assert all(values(batch) == batch.index_B.tolist() for batch in kept)


def test_memory_is_used_again():
    addresses = {batch.views[0].data_ptr() for batch in numbers(workers=1, steps=30)}
    assert len(addresses) <= 6


@pytest.mark.parametrize(
    ("harm", "text"),
    [("kill", r"was killed by SIGKILL \(usually by"), ("exit", "ended with exit code 7")],
)
def test_a_dead_worker_names_its_image(harm, text):
    with pytest.raises(WorkerDied, match=text) as caught:
        list(numbers(harm))
    assert str(caught.value).endswith("at image 5, number-5")


def test_an_error_of_the_user_comes_from_a_worker_as_it_is():
    with pytest.raises(ConfigError) as caught:
        list(numbers("refuse"))
    assert str(caught.value) == "data.source: no more numbers; count again"


# ---------------------------------------------------------------- broken images


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


def test_only_copies_to_a_gpu_are_not_waited_for(monkeypatch):
    asked = []

    def to(tensor, device, non_blocking=False):
        asked.append((device.type, non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", to)
    for name in ("cpu", "cuda"):
        Batch([], torch.arange(2)).to(torch.device(name))
    assert asked == [("cpu", False), ("cuda", True)]


@pytest.mark.parametrize(
    ("srun", "cores", "machine", "workers"),
    [
        (True, 12, 96, 11),  # bound: these cores are this rank's
        (True, 96, 96, 11),  # not bound: 8 ranks share them
        (True, 48, 96, 5),  # not bound, in half of a machine
        (False, 12, 96, 1),  # torchrun binds nothing: the job has 12 cores for 8 ranks
        (True, 64, 512, 16),
    ],
)
def test_workers_by_the_cores_of_a_rank(srun, cores, machine, workers, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: machine)
    names = {"RANK": "3", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}
    names |= {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "16"} if srun else {}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert choose_workers("auto", torch.device("cuda")) == workers
    assert choose_workers("auto", CPU) == 0
