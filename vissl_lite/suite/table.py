"""All results as one table: in the terminal, and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from string import ascii_letters

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from vissl_lite.io import replace_text
from vissl_lite.loggers._format import printable
from vissl_lite.suite.results import Result, digest

WIDTH, LABEL = 100, 36  # characters, of the table, of a label before it is folded
COLUMNS = [
    *("weights", "run", "step", "epoch", "evaluation", "metric", "value", "main", "problem"),
    *("seconds", "device", "finished"),
]


@dataclass
class Row:
    """Weights and what each evaluation says of them."""

    label: str
    step: int | None
    epoch: float | None
    run: str | None
    cells: dict[str, Result] = field(default_factory=dict)

    def value(self, evaluation: str) -> float | None:
        """The main metric."""
        result = self.cells.get(evaluation)
        return result.main[1] if result and result.main else None


@dataclass
class Table:
    """Rows in the order of the command, of a run by steps.

    Attributes:
        metrics: the main metric of each evaluation.
    """

    rows: list[Row]
    metrics: dict[str, str]

    @classmethod
    def of(cls, results: Iterable[Result]) -> Table:
        rows: dict[tuple, Row] = {}
        metrics: dict[str, str] = {}
        for r in results:
            row = rows.setdefault((r.label, r.step), Row(r.label, r.step, r.epoch, r.run))
            row.cells[r.evaluation] = r
            metrics[r.evaluation] = r.main[0] if r.main else metrics.get(r.evaluation, "")
        place = {
            label: i for i, label in reversed([*enumerate(row.label for row in rows.values())])
        }
        ordered = sorted(rows.values(), key=lambda row: (place[row.label], row.step or 0))
        return cls(ordered, metrics)

    def best(self, evaluation: str) -> float | None:
        """The largest value of several, None where there is nothing to compare."""
        found = [v for row in self.rows if (v := row.value(evaluation)) is not None]
        values = [v for v in found if not math.isnan(v)]
        return max(values) if len(values) > 1 else None

    def problems(self) -> dict[str, str]:
        """Sentence -> letter, or number from the 53rd on, for what could not be evaluated."""
        found = dict.fromkeys(
            r.problem for row in self.rows for r in row.cells.values() if r.problem
        )
        return dict(zip(found, chain(ascii_letters, map(str, count(1)))))

    def cell(self, row: Row, evaluation: str) -> str:
        """`0.9123`, with a star if it is the best; `- (a)` for a problem; nothing if not run."""
        value, result = row.value(evaluation), row.cells.get(evaluation)
        if value is not None:
            return f"{value:.4f}" + ("*" if value == self.best(evaluation) else "")
        return f"- ({self.problems()[result.problem]})" if result and result.problem else ""

    def notes(self) -> list[str]:
        """What must be known to read it."""
        lines = [f"({letter}) {problem}" for problem, letter in self.problems().items()]
        if differ := self._differing():
            keys = " and ".join(f"labelled.{key}" for key in differ)
            lines.append(f"The rows differ in {keys} and do not compare; set this for all.")
        return lines

    def _differing(self) -> list[str]:
        """The settings of the labelled images that are not the same in all rows."""
        found = [r.settings["labelled"] for row in self.rows for r in row.cells.values()]
        keys = dict.fromkeys(key for labelled in found for key in labelled)
        return [key for key in keys if len({digest(labelled.get(key)) for labelled in found}) > 1]


def at(row: Row) -> str:
    """`simclr, step 780`."""
    return row.label if row.step is None else f"{row.label}, step {row.step:,}"


# ---------------------------------------------------------------- terminal


def print_table(table: Table, every_metric: bool = False, console: Console | None = None) -> None:
    """100 columns wide; further evaluations follow below.

    Args:
        every_metric: one line per metric instead of one column per evaluation.
    """
    console = console or Console(highlight=False, width=WIDTH)
    if every_metric:
        console.print(_long(table))
    else:
        for names in _chunks(table):
            console.print()
            console.print(_wide(table, names))
    for note in table.notes():
        console.print(printable(note), style="dim", markup=False)


def _chunks(table: Table) -> list[list[str]]:
    """Evaluations that fit beside each other."""
    positions = [("weights", "step", "epoch"), *map(_position, table.rows)]
    taken = sum(min(LABEL, max(map(len, column))) + 2 for column in zip(*positions))
    chunks, left = [[]], WIDTH - taken
    for name, metric in table.metrics.items():
        width = max(len(name), len(metric), 7) + 2
        if chunks[-1] and left < width:
            chunks.append([])
            left = WIDTH - taken
        chunks[-1].append(name)
        left -= width
    return chunks


def _wide(table: Table, names: Sequence[str]) -> RichTable:
    shown = RichTable(box=None, padding=(0, 2, 0, 0))
    shown.add_column("weights", max_width=LABEL, overflow="fold")
    for name in ("step", "epoch"):
        shown.add_column(name, justify="right", no_wrap=True)
    for name in names:
        shown.add_column(f"{name}\n{table.metrics[name]}", justify="right", no_wrap=True)
    for row in table.rows:
        shown.add_row(*_position(row), *(_marked(table, row, name) for name in names))
    return shown


def _marked(table: Table, row: Row, name: str) -> str:
    text = table.cell(row, name)
    return f"[bold green]{text}[/]" if text.endswith("*") else f"{text} " if text else ""


def _long(table: Table) -> RichTable:
    shown = RichTable(box=None, padding=(0, 2, 0, 0))
    shown.add_column("weights", max_width=LABEL, overflow="fold")
    for name in ("step", "epoch"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("evaluation")
    shown.add_column("metric", overflow="fold")
    shown.add_column("value", justify="right", no_wrap=True)
    for row in table.rows:
        for name, result in row.cells.items():
            for metric, value in result.metrics.items():
                shown.add_row(*_position(row), name, escape(metric), f"{value:.4f}")
    return shown


def _position(row: Row) -> tuple[str, str, str]:
    step = "" if row.step is None else f"{row.step:,}"
    epoch = "" if row.epoch is None else f"{row.epoch:.2f}"
    return escape(printable(row.label)), step, epoch


# ---------------------------------------------------------------- CSV


def write_csv(table: Table, file: Path) -> None:
    """One line per metric, in full precision; a line without value for what was not possible."""
    text = io.StringIO(newline="")
    lines = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    lines.writeheader()
    for row in table.rows:
        for result in row.cells.values():
            lines.writerows(_lines(row, result))
    replace_text(file, text.getvalue())


def _lines(row: Row, result: Result) -> list[dict]:
    common = {
        "weights": row.label,
        "run": row.run,
        "step": row.step,
        "epoch": row.epoch,
        "evaluation": result.evaluation,
        "problem": result.problem,
        "seconds": result.seconds,
        "device": result.device,
        "finished": f"{result.finished:.0f}",
    }
    metrics = [
        {**common, "metric": metric, "value": repr(value), "main": int(metric == result.main[0])}
        for metric, value in result.metrics.items()
        if result.main
    ]
    return metrics or [common]
