"""Cells, what fits, what is named, and mistakes."""

from dataclasses import replace

import pytest
from plan.small_plans import regnet_swav
from training import small

from vissl_lite.errors import ConfigError
from vissl_lite.plan.compute import Time
from vissl_lite.plan.devices import DEVICES
from vissl_lite.plan.search import TIE, between, make_plan
from vissl_lite.plan.subject import Subject, optimizer_ratios

DEVICE = DEVICES["a100-80gb"]


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISSL_LITE_CACHE", str(tmp_path_factory.mktemp("plans")))
        return make_plan(regnet_swav(), 16, "a100-80gb", DEVICE, [4, 8])


def test_every_cell_once(plan):
    found = {(c.strategy, c.checkpointing, c.batch) for c in plan.cells}
    assert len(found) == len(plan.cells) == 5 * 3 * 2


def test_more_sharding_takes_less(plan):
    peak = {(c.strategy, c.checkpointing): c.cost.peak for c in plan.cells if c.batch == 8}
    for mode in ("none", "selective", "block"):
        order = [peak[s, mode] for s in ("ddp", "hsdp", "zero3")]
        assert order == sorted(order, reverse=True)
        assert peak["zero2", mode] >= peak["zero3", mode]
    for strategy in ("reference_ddp", "ddp", "zero3"):
        assert peak[strategy, "none"] > peak[strategy, "selective"] > peak[strategy, "block"]


def test_sharded_state_is_its_part_of_the_whole(plan):
    """Momentum and weights: 8 bytes a parameter over 16 ranks; rows divide but for few."""
    cell = next(c for c in plan.cells if c.strategy == "zero3")
    state = cell.cost.parts["parameters"] + cell.cost.parts["optimizer"]
    assert 8 * plan.parameters / 16 <= state < 1.2 * 8 * plan.parameters / 16


def test_the_simplest_of_equals_is_named(plan):
    assert plan.best is not None
    assert plan.best.fits
    assert f"parallel.strategy={plan.best.strategy}" in plan.sentence()
    assert f"train.batch_size={16 * plan.best.batch}" in plan.sentence()


def test_of_equals_one_that_gathers_within_machines(plan):
    """16 GPUs: rings of zero2 and zero3 go through both machines, those of hsdp through one."""

    def best(machine, **seconds):
        first = [c for c in plan.cells if (c.checkpointing, c.batch) == ("none", 4)]
        cells = [
            replace(c, fits=True, time=Time(seconds[c.strategy], 0, 0, 0))
            for c in first
            if c.strategy in seconds
        ]
        found = replace(plan, cells=cells, device=replace(DEVICE, gpus=machine), shard=machine)
        return found.best.strategy

    assert best(8, zero2=1.0, zero3=1.0, hsdp=1.01) == "hsdp"
    assert best(8, ddp=1.0, zero2=1.0, hsdp=1.01) == "ddp"
    assert best(8, zero2=1.0, zero3=1.0, hsdp=1.04) == "zero2"
    assert best(16, zero2=1.0, zero3=1.0) == "zero2"


def test_too_small_a_gpu():
    tiny = replace(DEVICE, memory=0.0101, reserved=0.01)
    plan = make_plan(regnet_swav(), 16, "tiny", tiny, [4], checkpointing=["block"])
    assert plan.best is None
    assert plan.leanest.strategy in ("zero2", "zero3")
    assert plan.sentence().startswith("Nothing fits into 0.0 GiB")


def test_the_fastest_that_fits_where_memory_decides(plan):
    peaks = sorted(c.cost.peak for c in plan.cells if c.batch == 8)
    limit = replace(DEVICE, memory=peaks[len(peaks) // 2] / 2**30, reserved=0.0)
    half = make_plan(regnet_swav(), 16, "half", limit, [8])
    fitting = [c for c in half.cells if c.fits]
    assert 0 < len(fitting) < len(half.cells)
    assert half.best.time.step <= TIE * min(c.time.step for c in fitting)


def test_one_gpu_has_no_strategy():
    plan = make_plan(regnet_swav(), 1, "a100-80gb", DEVICE, [4])
    assert {c.strategy for c in plan.cells} == {"single"}
    assert "parallel.strategy" not in plan.sentence()
    assert all(c.cost.traffic.total == 0 for c in plan.cells)


def test_batches_between_are_interpolated():
    """All bytes are linear in the batch but for which moment is the peak."""
    subject = Subject(regnet_swav(), "bf16", 1)
    low, middle, high = (subject.trace("none", b, gathered=True) for b in (4, 8, 16))
    mixed = between(low, high, 1 / 3)
    assert mixed.flops == pytest.approx(middle.flops)
    assert mixed.moved == pytest.approx(middle.moved, rel=1e-3)
    for ours, true in zip(mixed.events, middle.events):
        assert sum(ours.live.values()) == pytest.approx(sum(true.live.values()), rel=1e-3, abs=64)


def test_simclr_gathers_embeddings_of_all_ranks():
    """Its logits are [2 B, 2 B W]: memory grows with the number of processes, as do the bytes."""
    config = regnet_swav()
    config.loss, config.heads = {"name": "simclr"}, config.heads[:1]
    config.data.views = config.data.views[:1]
    traces = [Subject(config, "fp32", world).trace("none", 8, gathered=True) for world in (2, 64)]
    few, many = (max(sum(e.peak.values()) for e in trace.events) for trace in traces)
    assert many > few
    embeddings = 4 * 2 * 8 * 16  # fp32, V B D of each process; gradients go the same way back
    assert [trace.sent["loss"] for trace in traces] == [2 * 2 * embeddings, 2 * 64 * embeddings]


@pytest.mark.parametrize(
    ("optimizer", "state"),
    [("sgd", 1), ("adamw", 2), ("lars", 1), ("larc", 1)],
)
def test_state_of_optimizers(optimizer, state):
    config = regnet_swav()
    config.optimizer = {"name": optimizer}
    assert optimizer_ratios(config, sharded=False)[0] == state


def test_precision_of_old_gpus():
    old = DEVICES["v100-32gb"]
    plan = make_plan(replace(regnet_swav(), precision="auto"), 1, "v100", old, [4])
    assert plan.precision == "fp16"


def test_a_batch_that_does_not_divide():
    with pytest.raises(ConfigError, match="16 images do not divide over 3 GPUs"):
        make_plan(regnet_swav(), 3, "a100-80gb", DEVICE)


def test_micro_batches_that_do_not_divide():
    with pytest.raises(ConfigError, match="into 4 micro-batches"):
        make_plan(regnet_swav("++train.accumulate=4"), 1, "a100-80gb", DEVICE, [6])


def test_heads_by_their_name_alone():
    plan = make_plan(small("++heads=[linear]", "loss=cross_entropy"), 1, "a100-80gb", DEVICE, [8])
    assert all(cell.fits for cell in plan.cells)


def test_machines_that_do_not_divide_the_gpus_leave_hsdp_out():
    """12 GPUs in machines of 8, and no shard_size given."""
    plan = make_plan(regnet_swav(), 12, "a100-80gb", DEVICE, [4], ["ddp", "hsdp"], ["block"])
    assert [c.strategy for c in plan.cells] == ["ddp"]
    assert plan.notes == [
        "hsdp is left out: 12 GPUs do not split into machines of 8; give parallel.shard_size"
    ]
    config = regnet_swav("++parallel.shard_size=4")
    plan = make_plan(config, 12, "a100-80gb", DEVICE, [4], ["hsdp"], ["block"])
    assert ([c.strategy for c in plan.cells], plan.shard) == (["hsdp"], 4)
    assert not plan.notes
    plan = make_plan(config, 12, "a100-80gb", DEVICE, [4], ["zero3", "hsdp"], ["block"])
    assert plan.notes == ["zero3: left out, for the config sets what does not go with that"]


def test_groups_of_batch_norm_must_divide():
    with pytest.raises(ConfigError, match=r"parallel\.sync_bn: 8 processes .* groups of 64"):
        make_plan(regnet_swav("++parallel.sync_bn=64"), 8, "a100-80gb", DEVICE, [4])


def test_groups_of_batch_norm_wait_less_than_all():
    """Of one machine, among 64; each process receives 7/8 instead of 63/64 of twice the sums."""

    def cell(sync_bn):
        config = regnet_swav(f"++parallel.sync_bn={sync_bn}")
        return make_plan(config, 64, "a100-80gb", DEVICE, [4], ["ddp"], ["none"]).cells[0]

    off, groups, everyone = map(cell, ("off", 8, "all"))
    assert (off.cost.traffic.norm, off.cost.traffic.norm_calls) == (0, 0)
    assert groups.cost.traffic.norm * 8 / 7 == pytest.approx(everyone.cost.traffic.norm * 64 / 63)
    assert off.time.waits < groups.time.waits < everyone.time.waits
    assert off.cost.traffic.loss == groups.cost.traffic.loss == everyone.cost.traffic.loss > 0


def test_shard_size_must_divide():
    with pytest.raises(ConfigError, match="groups of 3; choose a divisor"):
        make_plan(regnet_swav("++parallel.shard_size=3"), 16, "a100-80gb", DEVICE, [4])
