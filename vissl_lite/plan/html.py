"""A plan as one page that needs nothing else: bars of memory by part, and every number."""

from __future__ import annotations

from html import escape
from itertools import groupby
from pathlib import Path

from vissl_lite.plan.memory import PARTS
from vissl_lite.plan.search import Cell, Plan
from vissl_lite.plan.table import GIB, SHORT, foot, head, name_of, row

COLOURS = dict(
    zip(PARTS, ("#4e79a7", "#f28e2b", "#76b7b2", "#e15759", "#edc948", "#9c9c9c", "#b07aa1"))
)
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1150px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em} h2{font-size:1.1em;margin:2em 0 .4em} code{background:#f3f3f3;padding:.1em .3em}
.best{background:#e7f4e4;border-left:4px solid #4a9c3f;padding:.7em 1em}
.wide{overflow-x:auto} table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25em .6em;text-align:right;white-space:nowrap;border-bottom:1px solid #eee}
th:nth-child(-n+2),td:nth-child(-n+2),td.bar{text-align:left}
tr.no{color:#999} tr.top{background:#e7f4e4}
.bar{min-width:260px} .bar div{position:relative;height:14px;background:#f6f6f6}
.bar span{position:absolute;top:0;height:100%} tr.no .bar span{opacity:.55}
.bar i{position:absolute;top:-3px;height:20px;border-left:2px solid #222}
.key span{display:inline-block;width:.9em;height:.9em;margin:0 .3em 0 1em;vertical-align:-.1em}
.foot{color:#666;font-size:.9em}
"""


def write_html(plan: Plan, command: str, file: Path) -> None:
    """Writes the page; `command` is shown."""
    file.write_text(page(plan, command), encoding="utf-8")


def page(plan: Plan, command: str) -> str:
    """The page as text; what comes from the user is escaped."""
    first, *rest = head(plan)
    key = "".join(f"<span style='background:{COLOURS[p]}'></span>{p}" for p in PARTS)
    scale = max(plan.device.usable, *(cell.cost.peak for cell in plan.cells))
    tables = "".join(
        _table(plan, batch, list(cells), scale)
        for batch, cells in groupby(plan.cells, key=lambda cell: cell.batch)
    )
    paragraphs = "".join(f"<p>{escape(line)}</p>" for line in rest)
    notes = "".join(f"<p>{escape(line)}</p>" for line in foot(plan))
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{escape(plan.recipe)}: plan</title><style>{STYLE}</style>"
        f"<h1>{escape(first)}</h1>{paragraphs}<p><code>{escape(command)}</code></p>"
        f"<p class='best'>{escape(plan.sentence())}</p>"
        f"<p class='key'>Memory at the peak:{key}; the line is what a GPU has.</p>"
        f"{tables}<div class='foot'>{notes}</div></html>\n"
    )


def _table(plan: Plan, batch: int, cells: list[Cell], scale: float) -> str:
    names = ("strategy", "checkpointing", "", *SHORT.values(), "total", "wire", "s/step", "img/s")
    titles = "".join(f"<th>{name}</th>" for name in (*names, "fits"))
    rows = "".join(_row(plan, cell, scale) for cell in cells)
    return (
        f"<h2>{batch} images per GPU, {batch * plan.world:,} in all</h2><div class='wide'><table>"
        f"<tr>{titles}</tr>{rows}</table></div>"
    )


def _row(plan: Plan, cell: Cell, scale: float) -> str:
    best = cell is plan.best
    strategy, checkpointing, *numbers = row(plan, cell, best)
    kind = "top" if best else "yes" if cell.fits else "no"
    values = "".join(f"<td>{number}</td>" for number in numbers)
    label = f"{name_of(cell.strategy)}, {cell.checkpointing}: {cell.cost.peak / GIB:.1f} GiB"
    return (
        f"<tr class='{kind}'><td>{strategy}</td><td>{checkpointing}</td>"
        f"<td class='bar'><div title='{label}'>{_bar(cell, scale)}"
        f"<i style='left:{100 * plan.device.usable / scale:.2f}%'></i></div></td>{values}</tr>"
    )


def _bar(cell: Cell, scale: float) -> str:
    left, spans = 0.0, []
    for part in PARTS:
        width = 100 * cell.cost.parts[part] / scale
        place = f"left:{left:.2f}%;width:{width:.2f}%;background:{COLOURS[part]}"
        spans.append(f"<span style='{place}'></span>")
        left += width
    return "".join(spans)
