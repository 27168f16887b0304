"""The table of `vissl-lite bench step`."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from vissl_lite.profile.clock import PHASES

WIDTH = 100
LABELS = {"clip": "  clip", "update": "  update", "after": "  after"}  # parts of the optimizer
MEMORY = {
    "program": "interpreter and libraries, before the training was built",
    "parameters": "of this process, those of a teacher included",
    "gradients": "",
    "optimizer state": "",
    "buffers": "running statistics, queues",
    "activations": "all the rest at the peak: activations, workspaces, gathered weights",
}


def print_report(result: dict[str, Any], console: Console | None = None) -> None:
    """Prints what `bench_step` returned, 100 columns wide."""
    console = console or Console(highlight=False, width=WIDTH)
    console.print(Group(_head(result), _times(result), _memory(result), _operators(result)))


def _head(result: dict[str, Any]) -> Text:
    share = f", {result['mfu']:.1%} of the device's peak" if result["mfu"] else ""
    accumulated = f" in {result['accumulate']} micro-batches" if result["accumulate"] > 1 else ""
    lines = [
        f"{result['recipe']} on {result['world_size']} x {result['device']}, {result['strategy']}, "
        f"torch {result['torch']}",
        f"{result['precision']}, {result['memory_format']}, checkpointing"
        f" {result['checkpointing']}, compile {'on' if result['compile'] else 'off'},"
        f" {result['local_batch']} images per process{accumulated}",
        *result["notes"],
        f"{result['images_per_s']:,.1f} images/s, {result['flops'] / 1e12:,.3g} TFLOP/s per"
        f" process{share} (recomputation not counted)",
    ]
    return Text("\n".join(lines) + "\n")


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for i, column in enumerate(columns):
        last = i + 1 == len(columns)
        table.add_column(column, justify="left" if i == 0 or last else "right", overflow="fold")
    return table


def _times(result: dict[str, Any]) -> Table:
    times = result["times"]
    where = f", rank {times['rank']}" if result["world_size"] > 1 else ""
    table = _table(f"time{where}", "ms", "share", "median", "quartiles", "")
    step = times["step"]["mean"]
    optimizer = sum(times[phase]["mean"] for phase in LABELS)
    for phase, meaning in PHASES.items():
        if phase == "clip":
            table.add_row("optimizer", _ms(optimizer), f"{optimizer / step:.1%}")
        table.add_row(LABELS.get(phase, phase), *_columns(times[phase], step), meaning)
    if result["world_size"] > 1:
        mean = times["communication"]["mean"]
        meaning = "and no computing; not in the ms above"
        table.add_row("communication", _ms(mean), f"{mean / step:.1%}", "", "", meaning)
    table.add_row("step", *_columns(times["step"], step), "")
    table.add_row("")
    return table


def _columns(found: dict[str, float], step: float) -> tuple[str, ...]:
    quartiles = f"{_ms(found['low'])} - {_ms(found['high'])}"
    return _ms(found["mean"]), f"{found['mean'] / step:.1%}", _ms(found["median"]), quartiles


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.1f}"


def _memory(result: dict[str, Any]) -> Table:
    held = result["memory"]
    table = _table("memory", "GB", "share", "")
    for part, meaning in MEMORY.items():
        if part == "program" and not held[part]:
            continue  # a GPU has none
        table.add_row(part, f"{held[part] / 1e9:.3f}", f"{held[part] / held['peak']:.1%}", meaning)
    table.add_row("peak", f"{held['peak'] / 1e9:.3f}", "", "")
    if "reserved" in held:
        table.add_row("reserved", f"{held['reserved'] / 1e9:.3f}", "", "by PyTorch's allocator")
    table.add_row("")
    return table


def _operators(result: dict[str, Any]) -> Table:
    table = _table("most expensive operators", "ms", "share", "calls", "")
    for row in result["operators"]:
        name = row["name"] if len(row["name"]) < 60 else row["name"][:57] + "..."
        table.add_row(name, _ms(row["seconds"]), f"{row['share']:.1%}", f"{row['calls']:,.0f}", "")
    return table
