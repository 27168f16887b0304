"""The table of `vissl-lite bench data`: images/s and ms of every stage, 80 columns wide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

STAGES = {
    "source": "read the bytes",
    "decode": "",
    "crop": "all that fixes the size",
    "colour": "flips, colours, blur",
    "collate": "one batch of all",
    "transfer": "to the GPU",
    "device": "what was left to it",
}


def print_report(result: dict[str, Any], console: Console | None = None) -> None:
    """Prints what `vissl_lite.profile.data.bench_data` returned."""
    console = console or Console(highlight=False, width=80)
    console.print(_head(result), markup=False)
    cost, on_gpu = result["cost"], result["device"] != "cpu"
    core = {kind: _of_the_core(stages, on_gpu) for kind, stages in cost.items()}
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    table.add_column("")
    for kind in cost:
        table.add_column(kind.replace(", ", ",\n"), justify="right", vertical="bottom")
    for title, show in {"images/s": _rate, "ms per image": _ms}.items():
        table.add_row(title, style="bold")
        for stage in STAGES:
            table.add_row(stage, *[_cell(stage, c, show, on_gpu) for c in cost.values()])
        table.add_row("one core", *map(show, core.values()), style="bold")
        if show is _rate:
            table.add_row("x reference", *[_ratio(core["reference"], c) for c in core.values()])
            shares = [f"{core['bound'] / c:.0%}" if c else "-" for c in core.values()]
            table.add_row("of the bound", *shares)
        table.add_row()
    console.print(table)
    console.print("; ".join(f"{stage}: {what}" for stage, what in STAGES.items() if what))


def _head(result: dict[str, Any]) -> str:
    broken = result["broken"]
    lines = [
        f"{result['source']}, {result['views']}",
        f"{result['images']} images, medians of {result['rounds']} rounds, CPU time of one thread",
        "bound: one decode and one antialiased resize per crop",
        f"chosen: {result['way']}",
    ]
    if broken:
        lines.insert(1, f"left out: {len(broken)} that cannot be read, the first: {broken[0]}")
    if result["device"] != "cpu":
        lines.append(f"transfer and device: on {result['device']}, by the clock, not in one core")
    return "\n".join(lines) + "\n"


def _of_the_core(stages: dict[str, float], on_gpu: bool) -> float:
    """Seconds per image; 0 if a GPU does it all."""
    theirs = ("transfer", "device") if on_gpu else ()
    return sum(seconds for stage, seconds in stages.items() if stage not in theirs)


def _cell(stage: str, stages: dict[str, float], show: Callable[[float], str], on_gpu: bool) -> str:
    if stage == "transfer" and not on_gpu:
        return "none" if "collate" in stages else ""
    return show(stages[stage]) if stage in stages else ""


def _rate(seconds: float) -> str:
    """A dash for what costs nothing that can be measured."""
    return f"{1 / seconds:,.0f}" if seconds > 1e-7 else "-"


def _ms(seconds: float) -> str:
    return f"{1e3 * max(0.0, seconds):,.3f}"


def _ratio(reference: float, seconds: float) -> str:
    return f"{reference / seconds:.1f}x" if seconds else "-"
