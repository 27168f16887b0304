"""The table as a page that needs nothing else: main metrics, their course, and every number."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from vissl_lite.io import replace_text
from vissl_lite.report.charts import Series, chart
from vissl_lite.report.page import POLICY, Html, details, html, page, section, tag
from vissl_lite.report.page import table as plain_table
from vissl_lite.suite.table import Row, Table, at

STYLE = """
.suite .metric { min-width: 6.2em; position: relative; }
.suite td span { display: block; height: 3px; margin-top: 2px; background: var(--s0); opacity: .6; }
.suite .best { font-weight: 700; color: var(--good); }
.suite .best span { background: var(--good); opacity: 1; }
.suite abbr { position: absolute; text-decoration: none; }
.suite th[scope=row] { position: sticky; left: 0; background: var(--paper); min-width: 7em;
  max-width: 15em; overflow-wrap: break-word; z-index: 1; }
.suite thead th { vertical-align: bottom; }
.suite thead small { display: block; font-weight: 400; }
.suite button { font: inherit; color: inherit; background: none; border: 0; padding: 0;
  cursor: pointer; text-align: inherit; text-decoration: underline dotted; }
.suite [aria-sort=ascending] button::before { content: "\\25b2 "; }
.suite [aria-sort=descending] button::before { content: "\\25bc "; }
@media (max-width: 600px) { .suite th[scope=row] { max-width: 9em; } }
@media print {
  .suite { font-size: 9pt; } .suite th[scope=row] { position: static; }
  .suite button { text-decoration: none; }
}
"""
SCRIPT = """
for (const table of document.querySelectorAll(".suite")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const up = head.getAttribute("aria-sort") === "descending" || (i === 0 && !head.ariaSort);
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = row => row.cells[i].dataset.value;
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        return (up ? 1 : -1) * (i ? x - y : x.localeCompare(y));
      });
      body.append(...rows);
    };
  });
}
"""


def write_html(table: Table, command: str, file: Path) -> None:
    """Writes the page; `command` is shown."""
    replace_text(file, suite_page(table, command))


def suite_page(table: Table, command: str) -> str:
    """The page as text; what comes from the user is escaped."""
    sections = [
        section("Main metrics", _main(table), [tag("p", note) for note in table.notes()]),
        _courses(table),
        section(
            "Every metric", [_every(table, name) for name, main in table.metrics.items() if main]
        ),
        section("Settings", [_settings(table, name) for name in table.metrics]),
        tag("footer", tag("p", tag("code", command)), time.strftime("%Y-%m-%d %H:%M")),
    ]
    text = page("Benchmark suite", [part for part in sections if part], _lead(table))
    return _enriched(text)


def _enriched(text: str) -> str:
    """With the style of the table and the script that sorts it; the policy allows this script."""
    sha = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    text = text.replace(html(POLICY), html(f"{POLICY}; script-src 'sha256-{sha}'"), 1)
    text = text.replace("</style>", f"{STYLE}</style>", 1)
    head, _, tail = text.rpartition("</body>")
    return f"{head}<script>{SCRIPT}</script></body>{tail}"


def _lead(table: Table) -> str:
    weights = len({row.label for row in table.rows})
    shown = ", ".join(
        f"{count} {one if count == 1 else many}"
        for count, one, many in (
            (weights, "network", "networks"),
            (len(table.rows), "state", "states"),
            (len(table.metrics), "evaluation", "evaluations"),
        )
    )
    return f"{shown}. The best of each column is bold." if len(table.rows) > 1 else f"{shown}."


def _main(table: Table) -> Html:
    titles = [
        _head("weights"),
        *(_head(name, right=True) for name in ("step", "epoch")),
        *(_head(name, metric, right=True) for name, metric in table.metrics.items()),
    ]
    caption = "The main metric of each evaluation"
    body = tag("tbody", [_line(table, row) for row in table.rows])
    whole = tag(
        "table", tag("caption", caption), tag("thead", tag("tr", titles)), body, class_="suite"
    )
    return tag("div", whole, class_="wide", role="region", aria_label=caption, tabindex=0)


def _head(name: str, metric: str = "", right: bool = False) -> Html:
    small = tag("small", metric) if metric else None
    return tag("th", name, small, scope="col", class_="num" if right else None)


def _line(table: Table, row: Row) -> Html:
    step = "" if row.step is None else f"{row.step:,}"
    epoch = "" if row.epoch is None else f"{row.epoch:.2f}"
    return tag(
        "tr",
        tag("th", Html(html(row.label).replace("/", "/<wbr>")), scope="row", data_value=row.label),
        tag("td", step, class_="num", data_value="" if row.step is None else row.step),
        tag("td", epoch, class_="num", data_value="" if row.epoch is None else row.epoch),
        [_cell(table, row, name) for name in table.metrics],
        "\n",
    )


def _cell(table: Table, row: Row, name: str) -> Html:
    value, text = row.value(name), table.cell(row, name)
    if value is None:
        return tag("td", text, class_="num metric", data_value="")
    best = value == table.best(name)
    whole = max(1.0, *(abs(v) for r in table.rows if (v := r.value(name)) is not None))
    bar = tag("span", style=f"width:{max(0.0, 100 * value / whole):.1f}%", aria_hidden="true")
    kind = "num metric best" if best else "num metric"
    shown = text.rstrip("*"), tag("abbr", "*", title="best") if best else None
    return tag("td", shown, bar, class_=kind, data_value=repr(value))


def _courses(table: Table) -> Html | None:
    """A chart per evaluation, of the networks of which several checkpoints are known."""
    rows: dict[str, list[Row]] = {}
    for row in table.rows:
        if row.step is not None:
            rows.setdefault(row.label, []).append(row)
    several = {label: found for label, found in rows.items() if len(found) > 1}
    if not several:
        return None
    charts = [
        chart(f"{name} {metric}", _series(several, name), "step")
        for name, metric in table.metrics.items()
        if metric
    ]
    return section("Over training", tag("div", charts, class_="charts"))


def _series(rows: dict[str, list[Row]], evaluation: str) -> list[Series]:
    series = []
    for i, (label, found) in enumerate(rows.items()):
        pairs = [(row.step or 0, v) for row in found if (v := row.value(evaluation)) is not None]
        series.append(Series(label, [x for x, _ in pairs], [y for _, y in pairs], i % 8))
    return series


def _every(table: Table, evaluation: str) -> Html:
    """Metrics x weights."""
    rows = [row for row in table.rows if row.value(evaluation) is not None]
    found = [row.cells[evaluation].metrics for row in rows]
    names = dict.fromkeys(metric for metrics in found for metric in metrics)
    lines: list[Sequence[Any]] = [
        [name, *(f"{metrics[name]:.4f}" if name in metrics else "" for metrics in found)]
        for name in names
    ]
    return details(evaluation, plain_table(evaluation, ["metric", *map(at, rows)], lines))


def _settings(table: Table, evaluation: str) -> Html:
    """Those of the first row; what differs by weights is in their results."""
    first = next(row.cells[evaluation] for row in table.rows if evaluation in row.cells)
    shown = {key: first.settings[key] for key in ("evaluation", "labelled", "precision")}
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
    return details(evaluation, tag("pre", text))
