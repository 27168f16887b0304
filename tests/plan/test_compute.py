import pytest

from vissl_lite.plan.compute import step_time
from vissl_lite.plan.devices import Device
from vissl_lite.plan.memory import Setting, Traffic
from vissl_lite.plan.trace import Trace

DEVICE = Device(80, 100, 1000, 100, 10, 0.5, "test", link_share=1.0, latency=0.0)


def setting(strategy: str, world: int, shard: int, accumulate: int = 1) -> Setting:
    return Setting(strategy, world, shard, 2, 1.0, 0.0, accumulate)


def test_roofline():
    """1e14 FLOP at 1e14 per second, then 1e12 bytes at 1e12 per second, at half of that."""
    time = step_time(Trace(flops=1e14, moved=1e12), Traffic(), setting("single", 1, 1), 0, DEVICE)
    assert time.step == time.compute == pytest.approx(4.0)


def test_micro_batches_compute_one_after_the_other():
    two = setting("single", 1, 1, accumulate=2)
    assert step_time(Trace(flops=1e14), Traffic(), two, 0, DEVICE).compute == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("traffic", "world", "shard", "seconds"),
    [
        (Traffic(shard=1e11), 8, 8, 1.0),  # inside a machine, 100 GB/s
        (Traffic(shard=1e11), 16, 16, 10.0),  # one ring through the network, 10 GB/s
        (Traffic(replicate=1e11), 16, 1, 10.0),
        (Traffic(replicate=1e11), 16, 8, 80.0),  # eight rings share the network
    ],
)
def test_wires(traffic, world, shard, seconds):
    time = step_time(Trace(), traffic, setting("hsdp", world, shard), 0, DEVICE)
    assert time.wire == time.step == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("traffic", "norm_ranks", "seconds"),
    [
        (Traffic(norm=1e10), 8, 0.1),  # groups inside a machine
        (Traffic(norm=1e10), 16, 1.0),  # through the network
        (Traffic(loss=1e10), 8, 1.0),  # what a loss gathers comes from all
    ],
)
def test_waits(traffic, norm_ranks, seconds):
    of_64 = Setting("ddp", 64, 1, 2, 1.0, 0.0, norm_ranks=norm_ranks)
    assert step_time(Trace(), traffic, of_64, 0, DEVICE).waits == pytest.approx(seconds)


def test_gathering_hides_behind_computing_but_batch_norm_does_not():
    trace, traffic = Trace(flops=1e14), Traffic(shard=1e10, norm=1e10)
    time = step_time(trace, traffic, setting("zero3", 8, 8), 0, DEVICE)
    assert time.step == pytest.approx(2.0 + 0.1)
