import time

import pytest
import torch.distributed as dist
from plan.small_plans import regnet_swav

from vissl_lite.plan.suggest import suggest

A100 = "NVIDIA A100-SXM4-80GB"
LEANEST = ("zero2", "block")  # as lean as zero3: the peak is in the backward pass


def test_small_models_are_not_traced(monkeypatch):
    monkeypatch.setattr("vissl_lite.plan.suggest.make_plan", None)
    start = time.perf_counter()
    assert suggest(regnet_swav(), 8, 80 * 2**30, A100) == ("reference_ddp", "none")
    assert time.perf_counter() - start < 2


def test_a_cpu_saves_nothing(monkeypatch):
    monkeypatch.setattr("vissl_lite.plan.suggest.make_plan", None)
    assert suggest(regnet_swav(), 8, 1, "cpu") == ("reference_ddp", "none")


def test_what_is_given_is_kept():
    config = regnet_swav("++memory.activation_checkpointing=selective")
    assert suggest(config, 8, 80 * 2**30, A100) == ("reference_ddp", "selective")
    config = regnet_swav("++parallel.strategy=zero2", "++memory.activation_checkpointing=block")
    assert suggest(config, 8, 1, A100) == ("zero2", "block")


def test_little_memory_leads_to_the_leanest():
    assert suggest(regnet_swav(), 8, 2**20, A100) == LEANEST


@pytest.mark.slow
def test_inside_a_process_group():
    """Another process pretends to be rank 0 of 8; it also finds nothing that fits."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        assert suggest(regnet_swav(), 8, 2**20, A100) == LEANEST
    finally:
        dist.destroy_process_group()
