"""What was run: recipe, command, versions, machine, length; and how several runs differ."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from vissl_lite.loggers._format import duration, large
from vissl_lite.parallel.agreement import flat
from vissl_lite.report.charts import short
from vissl_lite.report.page import Html, details, section, table, tag
from vissl_lite.report.runs import Run, card, number

LONGEST = 160  # letters of a value in a table
UNEQUAL_ANYWAY = ("resume",)


def about(run: Run) -> Html:
    """One run."""
    command = tag("p", "Command: ", tag("code", command_of(run))) if run.words else None
    rows = [[name, value] for name, value in facts(run).items() if value]
    config = table(
        "The config", ["key", "value"], [[k, _cut(v)] for k, v in sorted(flat(run.tree).items())]
    )
    shown = table("The run", ["", ""], rows)
    return section(
        "What was run", _recipe(run), command, shown, details("The whole config", config)
    )


def _recipe(run: Run) -> list[Html]:
    """The card of the recipe, and whether the command line made something else of it."""
    text = card(run.recipe)
    if not text:
        return []
    changes = [w for w in run.words if not w.startswith(("config=", "run_dir=", "hydra."))]
    note = tag("p", "The command below changes this recipe, so its card may not describe the run.")
    return [tag("pre", text), *([note] if changes else [])]


def compared(runs: Sequence[Run]) -> Html:
    """Several runs: a column each, and the keys of the config in which they differ."""
    every = [facts(run) for run in runs]
    names = [name for name in every[0] if any(f[name] for f in every)]
    rows = [[name, *(f[name] for f in every)] for name in names]
    trees = [flat(run.tree) for run in runs]
    keys = sorted({key for tree in trees for key in tree} - set(UNEQUAL_ANYWAY))
    differ = [key for key in keys if len({tree.get(key) for tree in trees}) > 1]
    found = [[key, *(_cut(tree.get(key, "not set")) for tree in trees)] for key in differ]
    head = ["key", *(run.name for run in runs)]
    text = tag("p", "Their configs are the same.")
    shown = table("Where the configs differ", head, found) if found else text
    return section(
        "What was run", table("The runs", ["", *(run.name for run in runs)], rows), shown
    )


def facts(run: Run) -> dict[str, str]:
    """Name -> value in words; "" where it is not known."""
    start, train = run.start, run.kind("train")
    versions = ", ".join(f"{name} {value}" for name, value in run.versions.items())
    processes = start.get("world_size", 1)
    device = str(start.get("device", ""))
    return {
        "recipe": run.recipe,
        "state": run.state,
        "length": _length(start),
        "time": _time(run),
        "machine": f"{processes} x {device}" if processes > 1 else device,
        "precision": str(start.get("precision", "")),
        "parameters": large(start["params"]) if "params" in start else "",
        "loss": short(number(train[-1].get("loss"))) if train else "",
        "versions": versions,
        "folder": str(run.folder),
    }


def command_of(run: Run) -> str:
    """As it can be given again."""
    return shlex.join(["vissl-lite", *run.words])


def _length(start: dict[str, Any]) -> str:
    if "total_steps" not in start:
        return ""
    return (
        f"{start['epochs']:g} epochs of {start['steps_per_epoch']:,} steps of"
        f" {start['global_batch']:,} images, {start['total_steps']:,} steps"
    )


def _time(run: Run) -> str:
    ends = [r["seconds"] for r in run.kind("end") if "seconds" in r]
    return duration(sum(ends)) if ends else ""


def _cut(value: str) -> str:
    return value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…"
