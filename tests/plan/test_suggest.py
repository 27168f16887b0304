import json
import time
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from plan.small_plans import regnet_swav

from vissl_lite.engine.strategy import stand_in
from vissl_lite.errors import ConfigError
from vissl_lite.plan.suggest import _answer, suggest

A100 = "NVIDIA A100-SXM4-80GB"
LEANEST = ("zero2", "block")  # as lean as zero3: the peak is in the backward pass


def test_small_models_are_not_traced(monkeypatch):
    monkeypatch.setattr("vissl_lite.plan.suggest.make_plan", None)
    start = time.process_time()
    assert suggest(regnet_swav(), 8, 80 * 2**30, A100) == ("reference_ddp", "none")
    assert time.process_time() - start < 2


def test_a_cpu_saves_nothing(monkeypatch):
    monkeypatch.setattr("vissl_lite.plan.suggest.make_plan", None)
    assert suggest(regnet_swav(), 8, 1, "cpu") == ("reference_ddp", "none")


def test_what_is_given_is_kept():
    config = regnet_swav("++memory.activation_checkpointing=selective")
    assert suggest(config, 8, 80 * 2**30, A100) == ("reference_ddp", "selective")
    config = regnet_swav("++parallel.strategy=zero2", "++memory.activation_checkpointing=block")
    assert suggest(config, 8, 1, A100) == ("zero2", "block")


def test_a_given_strategy_is_never_replaced():
    """One process, and groups of all processes, are planned as what they equal."""
    zero3 = regnet_swav("++parallel.strategy=zero3")
    offloaded = regnet_swav("++parallel.strategy=zero3", "++memory.cpu_offload=true")
    hsdp = regnet_swav("++parallel.strategy=hsdp", "++parallel.shard_size=8")
    assert suggest(zero3, 1, 2**20, A100) == ("zero3", "block")
    assert suggest(offloaded, 1, 2**20, A100) == ("zero3", "block")
    assert suggest(hsdp, 8, 2**20, A100) == ("hsdp", "block")


@pytest.mark.parametrize(
    ("words", "roomy", "full"),
    [
        (["++parallel.shard_size=4"], "hsdp", "hsdp"),
        (["++memory.cpu_offload=true"], "zero2", "zero2"),
        (["++parallel.shard_size=8", "++memory.cpu_offload=true"], "hsdp", "hsdp"),
        (["++heads=[{name: linear, shard_classes: true}]", "loss=cross_entropy"], "ddp", "zero2"),
    ],
)
def test_auto_takes_a_strategy_that_accepts_the_settings(words, roomy, full):
    """Whether it asks the planner, where memory is short, or not."""
    config = regnet_swav(*words, "++memory.activation_checkpointing=block")
    assert suggest(config, 8, 80 * 2**30, A100) == (roomy, "block")
    assert suggest(config, 8, 2**20, A100) == (full, "block")


def test_auto_refuses_what_no_strategy_accepts_in_one_sentence():
    offloaded = regnet_swav("++memory.cpu_offload=true")
    with pytest.raises(ConfigError, match="no GPU to offload from") as raised:
        suggest(offloaded, 8, 0, "cpu")
    assert len(raised.value.problems) == 1


def test_one_process_that_offloads_is_planned_as_such():
    offloaded = regnet_swav("++memory.cpu_offload=true", "++memory.activation_checkpointing=block")
    assert suggest(offloaded, 1, 2**20, A100) == ("zero3", "block")


def test_a_machine_is_what_the_launcher_says(monkeypatch):
    """In machines of 4, 12 processes have groups for hsdp; in those of the table, of 8, none."""
    found = {}

    def plan(config, world, name, device, **_):
        found["gpus"] = device.gpus
        raise ConfigError("enough")

    monkeypatch.setattr("vissl_lite.plan.suggest.make_plan", plan)
    for said, gpus in (("4", 4), ("", 8)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", said)
        with pytest.raises(ConfigError, match="enough"):
            suggest(regnet_swav("++train.batch_size=24"), 12, 2**20, A100)
        assert found["gpus"] == gpus


def test_a_gpu_that_the_table_lacks_is_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "NVIDIA L40S")
    said = stand_in(regnet_swav(), torch.device("cuda"))
    assert said.startswith("; the planner does not know 'NVIDIA L40S' and takes it")
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "NVIDIA H200")
    assert stand_in(regnet_swav(), torch.device("cuda")) == ""


def test_little_memory_leads_to_the_leanest():
    assert suggest(regnet_swav(), 8, 2**20, A100) == LEANEST


def test_a_mistake_that_the_other_process_finds_is_ours(monkeypatch):
    """Its answer goes the way through JSON, here without another process."""

    def run(command, input, **_):
        return SimpleNamespace(stdout=json.dumps(_answer(*json.loads(input))))

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    with pytest.raises(ConfigError, match=r"parallel\.shard_size: 8 processes do not split"):
        suggest(regnet_swav("++parallel.shard_size=3"), 8, 2**20, A100)


@pytest.mark.slow
def test_inside_a_process_group():
    """Another process pretends to be rank 0 of 8; it also finds nothing that fits."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        assert suggest(regnet_swav(), 8, 2**20, A100) == LEANEST
    finally:
        dist.destroy_process_group()
