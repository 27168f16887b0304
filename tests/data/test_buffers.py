"""Slots of a batch's memory: used again, never while somebody still looks at them."""

import gc
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from vissl_lite.data import buffers
from vissl_lite.data.buffers import Buffers
from vissl_lite.errors import ConfigError

SHAPES = [(2, 3, 8, 8, 3), (4, 3, 4, 4, 3)]


def test_what_a_worker_writes_is_what_is_lent():
    b = Buffers(SHAPES, slots=2)
    slot = b.take()
    for g, array in enumerate(b.arrays(slot)):
        assert array.shape == SHAPES[g]
        array[...] = np.arange(array.size).reshape(array.shape) % 251 + g
    for g, tensor in enumerate(b.lend(slot)):
        expected = np.arange(tensor.numel()).reshape(SHAPES[g]) % 251 + g
        np.testing.assert_array_equal(tensor.numpy(), expected.astype(np.uint8))


def test_a_slot_is_free_again_when_the_last_slice_of_it_is_gone():
    b = Buffers(SHAPES, slots=1)
    first, second = b.lend(b.take())
    assert b.take() is None
    kept = second[1:, :2].permute(0, 2, 3, 1, 4)
    del first, second
    gc.collect()
    assert b.take() is None
    del kept
    gc.collect()
    assert b.take() == 0


def test_another_process_cannot_take_slots():
    assert pickle.loads(pickle.dumps(Buffers(SHAPES, slots=3))).take() is None


def test_too_little_shared_memory_is_said_before_it_kills_a_worker(monkeypatch):
    monkeypatch.setattr(buffers, "SHARED_MEMORY", "/")
    monkeypatch.setattr(buffers.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(ConfigError, match=r"data.workers: 4 workers need 0 MB .*--shm-size"):
        Buffers(SHAPES, slots=2, workers=4)
