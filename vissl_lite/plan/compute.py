"""How long a step takes, from a trace, the traffic of a strategy and a row of the device table.

    compute = (FLOP / peak + bytes moved / bandwidth) / share       one after the other
    wire    = bytes / (slowest link on the way x link share) + calls x latency
    step    = max(compute, wire of the strategy) + wire of model and loss + optimizer

Gathering weights and reducing gradients overlap with computing; BatchNorm's reductions, and what
the loss sums and gathers, do not.
"""

from __future__ import annotations

from dataclasses import dataclass

from vissl_lite.plan.devices import Device
from vissl_lite.plan.memory import FP32, Setting, Traffic
from vissl_lite.plan.trace import Trace

TOUCHES = 8  # reads and writes of a step per value: norms, weight decay, momentum, weights


@dataclass(frozen=True)
class Time:
    """Seconds of a step."""

    compute: float
    wire: float
    waits: float
    optimizer: float

    @property
    def step(self) -> float:
        return max(self.compute, self.wire) + self.waits + self.optimizer


def step_time(
    trace: Trace, traffic: Traffic, setting: Setting, trained: int, device: Device
) -> Time:
    """Of one optimizer step.

    Args:
        trained: trainable values on this process.
    """
    bandwidth = device.bandwidth * 1e9
    roof = trace.flops / (device.tflops * 1e12) + trace.moved / bandwidth
    wire = _wire(traffic.shard, traffic.shard_calls, setting.shard, False, device)
    wire += _wire(
        traffic.replicate, traffic.replicate_calls, setting.world, setting.shard > 1, device
    )
    waits = _wire(traffic.norm, traffic.norm_calls, setting.norm_ranks, False, device)
    waits += _wire(traffic.loss, traffic.loss_calls, setting.world, False, device)
    update = TOUCHES * FP32 * trained / bandwidth / device.share
    return Time(setting.accumulate * roof / device.share, wire, waits, update)


def _wire(size: float, calls: int, ranks: int, one_per_machine: bool, device: Device) -> float:
    """Seconds of collectives in rings of consecutive ranks.

    Args:
        one_per_machine: each GPU of a machine is in a ring of its own, and all share the network.
    """
    share = device.link_share * 1e9
    if ranks <= device.gpus and not one_per_machine:
        return size / (device.link * share) + calls * device.latency * 1e-6
    rings = device.gpus if one_per_machine else 1
    slowest = min(device.network / rings, device.link)
    return size / (slowest * share) + calls * device.latency * 1e-6
