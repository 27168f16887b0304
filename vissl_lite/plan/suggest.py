"""What `parallel.strategy: auto` and `memory.activation_checkpointing: auto` become."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vissl_lite.config import Config, check
from vissl_lite.engine.combinations import accepted
from vissl_lite.errors import ConfigError
from vissl_lite.layers.unit import Checkpointing
from vissl_lite.parallel.mesh import Strategy
from vissl_lite.plan.devices import closest
from vissl_lite.plan.fakes import fake_views
from vissl_lite.plan.search import CHECKPOINTING, STRATEGIES, make_plan
from vissl_lite.plan.subject import Subject
from vissl_lite.plugins import load_entries

HOSTS = ("cpu", "meta")  # devices without a plan
BYTES_PER_PARAMETER = 16  # fp32 weights, gradients, momentum, 16-bit copies and gradients
SMALL = 0.5  # of the memory; below, nothing needs to be saved
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def suggest(
    config: Config, world_size: int, device_memory_bytes: int, device_name: str
) -> tuple[Strategy, Checkpointing]:
    """The fastest strategy and checkpointing that fit; where nothing fits, the leanest.

    Small models, for which a quick bound is far below the memory, and CPUs get the simplest
    strategy, mostly "reference_ddp", and "none" at once. What the config sets itself is kept, and
    only strategies that can do it are looked at. Takes seconds to a minute for large models,
    nothing the second time (`cache.py`).

    Args:
        world_size: processes of the run, one per device.
        device_name: as `torch.cuda.get_device_name` gives it, or "cpu" or "meta".

    Raises:
        ConfigError: what the config asks for cannot be planned, or no strategy can do it.
    """
    given = config.parallel.strategy, config.memory.activation_checkpointing
    simplest = _possible(config, device_name)[0]
    if (
        "auto" not in given
        or device_name in HOSTS
        or _is_small(config, world_size, device_memory_bytes)
    ):
        mode = "none" if given[1] == "auto" else given[1]
        return simplest, cast(Checkpointing, mode)
    if dist.is_initialized():  # a process group of pretended ranks needs a process of its own
        return _elsewhere(config, world_size, device_memory_bytes, device_name, _machine())
    return _search(config, world_size, device_memory_bytes, device_name, _machine())


def _possible(config: Config, device_name: str) -> list[Strategy]:
    """The given strategy, or all that `auto` may become."""
    strategy = config.parallel.strategy
    kind = device_name if device_name in HOSTS else "cuda"
    return accepted(config, STRATEGIES if strategy == "auto" else [strategy], torch.device(kind))


def _machine() -> int | None:
    """Processes of this machine, as the launcher says."""
    said = os.environ.get("LOCAL_WORLD_SIZE")
    return int(said) if said else None


def _search(
    config: Config,
    world_size: int,
    device_memory_bytes: int,
    device_name: str,
    machine: int | None,
) -> tuple[Strategy, Checkpointing]:
    strategies, mode = _possible(config, device_name), config.memory.activation_checkpointing
    device = closest(device_name, device_memory_bytes)
    plan = make_plan(
        config,
        world_size,
        device_name,
        replace(device, gpus=machine or device.gpus),
        strategies=strategies,
        checkpointing=CHECKPOINTING if mode == "auto" else [mode],
    )
    cell = plan.best or plan.leanest
    planned = cell.strategy in strategies  # else as another one that it equals
    return cast(Strategy, cell.strategy) if planned else strategies[0], cell.checkpointing


def _is_small(config: Config, world_size: int, memory: int) -> bool:
    """Whether 16 bytes per parameter and every tensor of a forward pass are far below the memory.

    The pass is one of one image, on the meta device.
    """
    subject = Subject(config, "fp32", world_size)
    model, _ = subject.build("none")
    views = fake_views(subject.sizes, 1, "meta")
    with torch.no_grad(), _Made() as made:
        model.eval()(views)
    images = config.train.batch_size / world_size / config.train.accumulate
    state = BYTES_PER_PARAMETER * subject.layout.parameters()
    share = 1.0 if config.precision == "fp32" else 0.5  # of fp32, which the pass was in
    return state + images * share * made.bytes < SMALL * memory


class _Made(TorchDispatchMode):
    """Adds up the bytes of every tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            known = {id(t) for t in tree_leaves(args)}  # what is changed in place is not made
            made = [t for t in tree_leaves(out) if isinstance(t, Tensor) and id(t) not in known]
            self.bytes += sum(t.nbytes for t in made)
        return out


def _elsewhere(config: Config, *rest: Any) -> tuple[Strategy, Checkpointing]:
    """The same by another process, whose answer is the last line that it prints.

    Raises:
        ConfigError: that process raised it.
    """
    environment = {k: v for k, v in os.environ.items() if k not in LAUNCHER}
    done = subprocess.run(
        [sys.executable, "-m", "vissl_lite.plan.suggest"],
        input=json.dumps([asdict(config), *rest]),
        env=environment | {"CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    if "problems" in answer:
        raise ConfigError(*answer["problems"])
    return cast(Any, tuple(answer["found"]))


def _answer(sent: dict[str, Any], *rest: Any) -> dict[str, Any]:
    try:
        return {"found": _search(check(sent), *rest)}
    except ConfigError as error:
        return {"problems": error.problems}


if __name__ == "__main__":
    load_entries()
    print(json.dumps(_answer(*json.load(sys.stdin))))
