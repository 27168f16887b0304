"""What a person sees of a run: a progress bar on a terminal, lines elsewhere."""

import os
import sys
from time import monotonic
from typing import Any, Literal

from rich.console import Console as Screen
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vissl_lite import LOGGERS
from vissl_lite.loggers import _format as fmt


@LOGGERS.register("console")
class Console:
    """Progress on the screen: a bar for the whole run, evaluations and notes above it.

    Where standard output is no terminal that can redraw a line (a file, a CI job, TERM=dumb), plain
    lines: the first and the last training record, those between at most every `every_seconds`, and
    every evaluation and note.

    Args:
        style: "bar" or "lines"; "auto" looks at the terminal.
        every_seconds: time between lines of training records; the bar is redrawn up to 10 times a
            second.
    """

    def __init__(
        self, style: Literal["auto", "bar", "lines"] = "auto", every_seconds: float = 10.0
    ):
        redraws = style == "bar" or (style == "auto" and can_redraw())
        self.screen = Screen(highlight=False, soft_wrap=True, force_terminal=redraws or None)
        # no refresh thread: a thread that holds a lock while workers are forked can hang them
        self.live = Live(console=self.screen, auto_refresh=False) if redraws else None
        self.interval = 0.1 if redraws else every_seconds
        self.shown_at = -float("inf")
        self.pending: dict[str, Any] | None = None
        self.length: dict[str, Any] = {}

    def log(self, record: dict[str, Any]) -> None:
        getattr(self, f"_{record['kind']}")(record)

    def _start(self, record: dict[str, Any]) -> None:
        self.length = {key: record[key] for key in ("epochs", "total_steps") if key in record}
        for i, text in enumerate(fmt.introduction(record)):
            indent, style = ("  ", "dim") if i else ("", "bold")
            self.screen.print(Text(indent + fmt.printable(text), style))

    def _train(self, record: dict[str, Any]) -> None:
        self.pending = {**self.length, **record}
        last = record["step"] == self.pending.get("total_steps")
        if last or monotonic() - self.shown_at >= self.interval:
            self._show()

    def _eval(self, record: dict[str, Any]) -> None:
        step = fmt.step({**self.length, **record})
        head = Text.assemble((f"{record['name']:<11} ", "bold cyan"), (step, "dim"))
        self.screen.print(_spaced([head, *map(_styled, fmt.metrics(record))]))

    def _note(self, record: dict[str, Any]) -> None:
        warning = record.get("level") == "warning"
        text = fmt.printable(record["text"])
        self.screen.print(
            Text(f"warning: {text}" if warning else text, "yellow" if warning else "")
        )

    def _end(self, record: dict[str, Any]) -> None:
        self._stop()
        took = f" in {fmt.duration(record['seconds'])}" if "seconds" in record else ""
        self.screen.print(Text(f"{record['reason']}: step {record['step']:,}{took}", "bold"))

    def _show(self) -> None:
        """Draws the latest training record, if it has not been."""
        if self.pending is None:
            return
        if self.live:
            self.live.start()
            self.live.update(bar(self.pending), refresh=True)
        else:
            self.screen.print(line(self.pending))
        self.pending, self.shown_at = None, monotonic()

    def _stop(self) -> None:
        self._show()
        if self.live:
            self.live.stop()

    def close(self) -> None:
        self._stop()


def can_redraw() -> bool:
    """True on a terminal, outside CI jobs, unless TERM says that it only appends."""
    dumb = os.environ.get("TERM", "dumb") in ("dumb", "unknown")
    return sys.stdout.isatty() and not dumb and not os.environ.get("CI")


def bar(record: dict[str, Any]) -> Group:
    """Two rows: how far the run is, and what it measured last."""
    done, total = record["step"], record["total_steps"]
    row = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for ratio in (None, 1, None, None, None):
        row.add_column(no_wrap=True, ratio=ratio)
    row.add_row(
        Text(fmt.epoch(record), "bold"),
        ProgressBar(
            total, done, style="bright_black", complete_style="cyan", finished_style="green"
        ),
        f"{100 * done / total:3.0f} %",
        fmt.step(record),
        Text(_eta(record), "bold"),
    )
    measured = _spaced([_styled(field) for field in fmt.fields(record)])
    measured.no_wrap, measured.overflow = True, "ellipsis"
    return Group(row, measured)


def line(record: dict[str, Any]) -> Text:
    """The same in one line."""
    parts = [fmt.epoch(record), fmt.step(record), *map(str, fmt.fields(record)), _eta(record)]
    return Text("  ".join(filter(None, parts)))


def _eta(record: dict[str, Any]) -> str:
    return f"ETA {fmt.duration(record['eta_s'])}" if record.get("eta_s") is not None else ""


def _styled(field: fmt.Field) -> Text:
    before, after = field.label and f"{field.label} ", field.unit and f" {field.unit}"
    return Text.assemble((before, "dim"), field.value, (after, "dim"))


def _spaced(parts: list[Text]) -> Text:
    return Text("  ").join(parts)
