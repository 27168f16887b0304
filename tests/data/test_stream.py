"""Batches on a GPU are those of the CPU, whichever way they take."""

import numpy as np
import pytest
import torch

from vissl_lite import SOURCES
from vissl_lite.data.dataset import ViewDataset
from vissl_lite.data.fast import FastViews
from vissl_lite.data.loader import Loader
from vissl_lite.data.resident import MemoryDataset, held_images
from vissl_lite.data.sampler import Order, StepSampler
from vissl_lite.data.views import Views
from vissl_lite.plugins import load_entries

load_entries()
CPU, CUDA, BATCH, STEPS = torch.device("cpu"), torch.device("cuda"), 16, 12
TRANSFORMS = ["random_resized_crop", "random_horizontal_flip", "color_jitter", "gaussian_blur"]
GROUPS = [{"count": 2, "size": 24, "transforms": TRANSFORMS}]
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def stream(way: str, device: torch.device, workers: int, compiled: bool = False):
    source, views = SOURCES.build({"name": "digits", "split": "test"}), Views.build(GROUPS)
    order, compiled_for = Order([len(source)]), BATCH if compiled else 0
    if way == "memory":
        held = held_images(source)
        dataset = MemoryDataset(source, held, views, order, 0, device, compiled_for)
    else:
        fast = FastViews(views, on_device=way == "device")
        dataset = ViewDataset(source, fast, order, 0, compiled_for)
    sampler = StepSampler(len(source), BATCH, STEPS, start=0, rank=0, world=1)
    return list(Loader(dataset, sampler, device, workers))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("way", "workers"), [("worker", 2), ("device", 0), ("device", 2), ("memory", 0)]
)
def test_batches_are_those_of_the_cpu(way, workers, compiled):
    """All kept: no slot is overwritten while its copy is under way."""
    for ours, theirs in zip(stream(way, CUDA, workers, compiled), stream(way, CPU, 0), strict=True):
        assert ours.views[0].is_cuda
        assert torch.equal(ours.index_B.cpu(), theirs.index_B)
        assert torch.equal(ours.label_B.cpu(), theirs.label_B)
        gap = np.abs(ours.views[0].cpu().numpy().astype(int) - theirs.views[0].numpy())
        assert gap.mean() < (0.02 if way != "worker" else 1e-9)
