"""The order of reading, computing and using, and how long a device waits."""

from contextlib import nullcontext
from dataclasses import dataclass
from unittest.mock import patch

import pretended_gpu as pretended
import pytest
import torch
from engine.some_digits import CPU, FP32, SomeDigits, small_model
from pretended_gpu import CUDA, pretended_gpu

from vissl_lite.data.views import Views
from vissl_lite.engine.ahead import OneAhead
from vissl_lite.engine.features import extract

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU")
ON_CPU = "read 1, start 1, use 1, read 2, start 2, use 2, read 3, start 3, use 3"
ON_GPU = "read 1, start 1, read 2, start 2, sync, use 1, read 3, start 3, sync, use 2, sync, use 3"


@dataclass
class Item:
    images_BHWC: torch.Tensor


@pytest.mark.parametrize(
    ("device", "order"), [(CPU, ON_CPU), pytest.param(CUDA, ON_GPU, marks=no_gpu)]
)
def test_a_gpu_has_the_next_batch_before_the_last_is_used(device, order):
    log = []

    def read():
        for i in (1, 2, 3):
            log.append(f"read {i}")
            yield Item(torch.tensor([i]))

    def compute(images):
        assert images.device == device
        log.append(f"start {images.tolist()[0]}")
        return {"twice": 2 * images}

    sync = patch.object(pretended.Event, "synchronize", lambda _: log.append("sync"))
    with pretended_gpu() if device == CUDA else nullcontext(), sync:
        for item, found in OneAhead(read(), compute, device):
            assert found["twice"].device == CPU
            assert torch.equal(found["twice"], 2 * item.images_BHWC)
            log.append(f"use {item.images_BHWC.item()}")
    assert ", ".join(log) == order


class Clock:
    """Seconds that pass only where a test says so."""

    now = 0.0

    def __call__(self):
        return self.now


def waited(device, idle_s=0.0):
    """Seconds, of three items that take 1, 20 and 20 to read and 100 to compute."""
    clock = Clock()

    class Event(pretended.Event):
        def elapsed_time(self, other):
            return 1e3 * idle_s  # from the end of one batch to the beginning of the next

    def read():
        for seconds in (1, 20, 20):
            clock.now += seconds
            yield Item(torch.zeros(1))

    def compute(images):
        clock.now += 100
        return {}

    gpu = pretended_gpu() if device == CUDA else nullcontext()
    with patch("time.perf_counter", clock), gpu, patch.object(torch.cuda, "Event", Event):
        ahead = OneAhead(read(), compute, device)
        assert len(list(ahead)) == 3
    return ahead.waited_s


def test_it_tells_how_long_it_waited_for_images():
    assert waited(CPU) == 41


@no_gpu
def test_a_gpu_waits_only_while_it_has_nothing_to_do():
    assert waited(CUDA) == 1
    assert waited(CUDA, idle_s=5) == 11
    assert waited(CUDA, idle_s=30) == 41  # the rest of it is not for images


@pytest.mark.parametrize("device", [CPU, pytest.param(CUDA, marks=no_gpu)])
def test_what_was_read_before_an_error_is_used(device):
    def read():
        yield Item(torch.tensor([1]))
        raise OSError("the second")

    used = []

    def use(ahead):
        for _, found in ahead:
            used.append(found["x"].item())

    gpu = pretended_gpu() if device == CUDA else nullcontext()
    with gpu, pytest.raises(OSError, match="the second"):
        use(OneAhead(read(), lambda x: {"x": x}, device))
    assert used == [1]


@pytest.mark.parametrize("where", ["compute", "use"])
def test_the_reader_ends_with_whoever_gives_up(where):
    """While the error is under way, not when it is forgotten: a reader may have workers."""
    closed = []

    def read():
        try:
            for _ in range(3):
                yield Item(torch.zeros(1))
        finally:
            closed.append(True)

    def fail(here):
        if here == where:
            raise RuntimeError(where)
        return {}

    def run():
        for _ in OneAhead(read(), lambda _: fail("compute"), CPU):
            fail("use")

    try:
        run()
    except RuntimeError:
        assert closed
    assert closed


def test_features_are_those_of_the_cpu():
    """Bit for bit on a pretended GPU; a real one may compute in TF32."""
    views = Views.build([{"count": 1, "size": 8, "transforms": []}])

    def features(device):
        source = SomeDigits(20, broken=(3, 19), unlabelled=(5,))
        layers = ["res3", "logits"]
        model = small_model().to(device)
        return extract(model, source, views, layers, device=device, numerics=FP32, batch_size=7)

    real = torch.cuda.is_available()
    with nullcontext() if real else pretended_gpu():
        ours = features(CUDA)
    theirs = features(CPU)
    for layer, x_ND in theirs.features.items():
        assert ours.features[layer].device == CPU
        gap = (ours.features[layer] - x_ND).abs().max()
        assert gap <= (0.01 * x_ND.abs().max() if real else 0.0)
    assert torch.equal(ours.label_N, theirs.label_N)
    assert ours.broken == theirs.broken
