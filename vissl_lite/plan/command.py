"""`vissl-lite plan config=RECIPE world_size=N gpu=NAME [...]`: what a training will need."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vissl_lite.config import Config
from vissl_lite.errors import ConfigError
from vissl_lite.overrides import compose
from vissl_lite.plan.devices import DEVICES, find_device, gib
from vissl_lite.plan.html import write_html
from vissl_lite.plan.search import Plan, make_plan
from vissl_lite.plan.table import print_plan
from vissl_lite.words import check_file

USAGE = f"""usage: vissl-lite plan config=RECIPE world_size=N gpu=NAME [key=value ...]

world_size     GPUs, one process each; default 1
gpu            {", ".join(DEVICES)}; default a100-80gb
gpu_memory     instead of the GPU's own, such as 80GiB
batch          images per GPU and step, such as 8,16,32; default: train.batch_size / world_size
devices        a YAML file that changes or adds rows of the device table
html           file for the plan as a page
json           file for the plan as data
fresh          true: do not use what was found before
Everything else changes the recipe, as for a run.
"""
OWN = ("world_size", "gpu", "gpu_memory", "batch", "devices", "html", "json", "fresh")


def main(words: Sequence[str]) -> None:
    """Prints a plan; `words` are what follows `vissl-lite plan`.

    Raises:
        ConfigError: a mistake in them.
    """
    if not words or {"-h", "--help"} & set(words):
        print(USAGE)
        return
    own, rest = _divide(words)
    for key in ("html", "json"):
        if key in own:
            check_file(Path(own[key]), key)
    config = compose(rest, OWN)
    plan = plan_of(config, own, " ".join(words))
    print_plan(plan)
    if "html" in own:
        write_html(plan, f"vissl-lite plan {' '.join(words)}", Path(own["html"]))
    if "json" in own:
        text = json.dumps(as_data(plan), indent=1)
        Path(own["json"]).write_text(text + "\n", encoding="utf-8")


def plan_of(config: Config, own: dict[str, str], words: str = "") -> Plan:
    """The plan for a checked config and our own keys, all of them strings."""
    name = own.get("gpu", "a100-80gb")
    file = Path(own["devices"]) if "devices" in own else None
    memory = gib(own["gpu_memory"]) if "gpu_memory" in own else None
    return make_plan(
        config,
        _whole(own, "world_size", "1")[0],
        name.lower(),
        find_device(name, file, memory),
        _whole(own, "batch", ""),
        fresh=own.get("fresh", "false").lower() == "true",
    )


def as_data(plan: Plan) -> dict[str, Any]:
    """A plan as plain values, bytes and seconds."""
    cells = [
        {
            "strategy": cell.strategy,
            "activation_checkpointing": cell.checkpointing,
            "batch": cell.batch,
            "memory": cell.cost.parts,
            "peak": cell.cost.peak,
            "fits": cell.fits,
            "traffic": asdict(cell.cost.traffic),
            "seconds": asdict(cell.time) | {"step": cell.time.step},
        }
        for cell in plan.cells
    ]
    whole = {"shard_size": plan.shard, "device": asdict(plan.device), "cells": cells}
    names = ("recipe", "world", "gpu", "precision", "parameters", "flops", "notes")
    return {name: getattr(plan, name) for name in names} | whole | {"best": plan.sentence()}


def _divide(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    pairs = [word.partition("=") for word in words]
    own = {key: value for key, _, value in pairs if key in OWN}
    return own, [word for word, pair in zip(words, pairs) if pair[0] not in OWN]


def _whole(own: dict[str, str], key: str, default: str) -> list[int]:
    """One or more whole numbers above 0, separated by commas."""
    parts = [part for part in own.get(key, default).strip("[]").split(",") if part.strip()]
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"{key}: {own[key]!r} is not a number of at least 1")
    return [int(part) for part in parts]
