"""A plan in the terminal, 110 columns wide."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vissl_lite.plan.memory import PARTS
from vissl_lite.plan.search import Cell, Plan

GIB, WIDTH = 2**30, 110
SHORT = dict(zip(PARTS, ("params", "grads", "optim", "activ", "loss", "buffers", "comm")))


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """Head, one table per batch, and the sentence that names the fastest cell that fits."""
    console = console or Console(highlight=False, width=WIDTH)
    for line in head(plan):
        console.print(Text(line))
    best = plan.best
    for batch, cells in groupby(plan.cells, key=lambda cell: cell.batch):
        console.print()
        console.print(_table(plan, batch, list(cells), best))
    console.print()
    console.print(Text(plan.sentence(), style="bold"))
    for line in foot(plan):
        console.print(Text(line, style="dim"))


def head(plan: Plan) -> list[str]:
    device = plan.device
    return [
        f"{plan.recipe}: {plan.parameters / 1e6:,.1f} M parameters,"
        f" {plan.flops / 1e9:,.0f} GFLOP per image and training step, {plan.precision}",
        f"{plan.world:,} x {plan.gpu}: {device.memory:.1f} GiB, {device.usable / GIB:.1f} of it for"
        f" the training; {device.gpus} GPUs per machine",
    ]


def foot(plan: Plan) -> list[str]:
    return [
        *plan.notes,
        "GiB per GPU at the peak of a step. wire: GB that a GPU receives per step. Seconds are"
        f" estimates: {plan.device.share:.0%} of the roofline ({plan.device.share_from}).",
    ]


def _table(plan: Plan, batch: int, cells: list[Cell], best: Cell | None) -> Table:
    title = f"{batch} images per GPU, {batch * plan.world:,} in all"
    table = Table(title=title, box=None, padding=(0, 1, 0, 0), title_justify="left")
    for name in ("strategy", "checkpointing"):
        table.add_column(name)
    for name in (*SHORT.values(), "total", "wire", "s/step", "img/s", "fits"):
        table.add_column(name, justify="right")
    for cell in cells:
        style = "bold green" if cell is best else "" if cell.fits else "dim"
        table.add_row(*row(plan, cell, cell is best), style=style)
    return table


def row(plan: Plan, cell: Cell, is_best: bool) -> list[str]:
    """What a table says of a cell; images/s are of all GPUs."""
    parts = [f"{cell.cost.parts[part] / GIB:.2f}" for part in PARTS]
    fits = "best" if is_best else "yes" if cell.fits else "no"
    return [
        *(name_of(cell.strategy), cell.checkpointing, *parts),
        f"{cell.cost.peak / GIB:.1f}",
        f"{cell.cost.traffic.total / 1e9:.1f}",
        f"{cell.time.step:.2f}",
        f"{cell.images_per_s * plan.world:,.0f}",
        fits,
    ]


def name_of(strategy: str) -> str:
    return "one GPU" if strategy == "single" else strategy
