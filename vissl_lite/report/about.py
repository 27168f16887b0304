"""What was run: recipe, command, versions, machine, length; and how several runs differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from vissl_lite.loggers._format import duration, large
from vissl_lite.parallel.agreement import flat
from vissl_lite.report.charts import short
from vissl_lite.report.page import Html, details, html, section, table, tag
from vissl_lite.report.runs import Run, card, number

LONGEST = 160  # letters of a value in a table
UNEQUAL_ANYWAY = ("resume",)


def about(run: Run) -> Html:
    """One run."""
    command = tag("p", "Command: ", tag("code", run.command)) if run.command else None
    rows = [[name, value] for name, value in facts(run).items() if value]
    entries = [[_key(k), _value(v)] for k, v in sorted(flat(run.tree).items())]
    config = table("The config", ["key", "value"], entries)
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
    return [shown_card(text), *([note] if changes else [])]


def shown_card(text: str) -> Html:
    """The comment of a recipe: a title and entries `name: value` as a table, another as it is."""
    title, *lines = re.sub(r"\n {2,}", " ", text).splitlines()
    entries = [line.split(":", 1) for line in lines]
    if not all(len(entry) == 2 for entry in entries):
        return tag("pre", text)
    return table(title, ["", ""], [[name, value.strip()] for name, value in entries])


def compared(runs: Sequence[Run]) -> Html:
    """Several runs: a column each, and the keys of the config in which they differ."""
    every = [facts(run) for run in runs]
    names = [name for name in every[0] if any(f[name] for f in every)]
    rows = [[name, *(f[name] for f in every)] for name in names]
    trees = [flat(run.tree) for run in runs]
    keys = sorted({key for tree in trees for key in tree} - set(UNEQUAL_ANYWAY))
    differ = [key for key in keys if len({tree.get(key) for tree in trees}) > 1]
    found = [[_key(key), *(_value(tree.get(key, "not set")) for tree in trees)] for key in differ]
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
        "folder": tag("code", run.folder),  # breaks anywhere
    }


def _length(start: dict[str, Any]) -> str:
    if "total_steps" not in start:
        return ""
    return (
        f"{start['epochs']:g} epochs of {start['steps_per_epoch']:,} steps of"
        f" {start['global_batch']:,} images, {start['total_steps']:,} steps"
    )


def _time(run: Run) -> str:
    ends = [r["seconds"] for r in run.kind("end") if "seconds" in r]
    if ends:
        return duration(sum(ends))
    steps = _seconds_of_steps(run)
    return f"{duration(steps)} for the steps alone" if steps else ""


def _seconds_of_steps(run: Run) -> float:
    """By their rates, of a run that goes on or was killed."""
    seconds, at, images = 0.0, 0, 0
    for record in run.records:
        if record.get("kind") == "start":
            at, images = record.get("resumed_step", 0), record.get("global_batch", 0)
        elif number(record.get("images_per_s")) > 0:
            seconds += (record["step"] - at) * images / record["images_per_s"]
            at = record["step"]
    return seconds


def _key(key: str) -> Html:
    """May be broken after each dot."""
    return Html(html(key).replace(".", ".<wbr>"))


def _value(value: str) -> Html:
    return tag("code", value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…")
