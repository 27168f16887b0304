"""A page of HTML that needs nothing else: no script, no font, no picture from elsewhere.

    page("Title", [section("Loss", tag("p", "any text is escaped"), table("Caption", head, rows))])

Whatever is no `Html` is escaped where it enters. The page forbids the browser every request by its
content security policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from vissl_lite.report.style import STYLE

EMPTY = ("br", "img", "meta", "rect", "line", "circle", "path", "polyline", "image")
NUMBER = re.compile(r"[-+−]?[\d.,:]+(e[-+]?\d+)?( ?[%kMB])?")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Html(str):
    """Markup: escaped already."""

    __slots__ = ()


def html(value: Any) -> Html:
    """Anything as markup: strings are escaped, None is nothing, of a list all its members."""
    if isinstance(value, Html):
        return value
    if isinstance(value, (list, tuple)):
        return Html("".join(map(html, value)))
    return Html("" if value is None else escape(str(value)))


def tag(name: str, *children: Any, **attributes: Any) -> Html:
    """`tag("p", "a < b", class_="soft")` is `<p class="soft">a &lt; b</p>`.

    An attribute that is None is left out, True has no value; `aria_label` is `aria-label`, and an
    underscore at the end only keeps a name from being a word of Python.
    """
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html(value)}"')
        for key, value in attributes.items()
        if value is not None
    )
    if name in EMPTY and not children:
        return Html(f"<{name}{given}>" if name in ("br", "img", "meta") else f"<{name}{given}/>")
    return Html(f"<{name}{given}>{html(children)}</{name}>")


def section(title: str, *content: Any) -> Html:
    """A part of a page, with a heading that the list of contents knows."""
    name = slug(title)
    heading = tag("h2", title, id=name)
    return tag("section", heading, content, "\n", aria_labelledby=name)


def page(title: str, sections: Iterable[Html], lead: Any = None) -> str:
    """The whole page.

    Args:
        sections: made by `section`; their headings are the list of contents.
        lead: what stands below the title, in one or two sentences.
    """
    body = html(list(sections))
    found = re.findall(r'<h2 id="([^"]+)">(.*?)</h2>', body)
    links = [tag("li", tag("a", Html(text), href=f"#{name}")) for name, text in found]
    return "".join(
        (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            tag("title", title),
            f"<style>\n{STYLE}</style></head>\n<body><header>",
            tag("h1", title),
            tag("p", lead, class_="lead") if lead else "",
            tag("nav", tag("ul", links), aria_label="Contents") if len(links) > 1 else "",
            f"</header>\n<main>{body}</main></body></html>\n",
        )
    )


def table(caption: str, head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> Html:
    """A table whose first column names the rows; it scrolls by itself where it is too wide.

    A head of empty words is left out. Columns of numbers are aligned to the right.
    """
    rows = [list(row) for row in rows]
    right = [_numeric(column) for column in zip(*rows)] or [False] * len(head)
    titles = [
        tag("th", text, scope="col", class_="num" if is_right else None)
        for text, is_right in zip(head, right)
    ]
    lines = [tag("tr", [_cell(i, cell, right[i]) for i, cell in enumerate(row)]) for row in rows]
    top = tag("thead", tag("tr", titles)) if any(head) else None
    whole = tag("table", tag("caption", caption), top, tag("tbody", lines))
    return tag("div", whole, class_="wide", role="region", aria_label=caption, tabindex=0)


def details(summary: str, *content: Any) -> Html:
    """What only some readers open."""
    return tag("details", tag("summary", summary), content)


def slug(text: str) -> str:
    """`Learning rate` -> `learning-rate`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"


def _cell(i: int, value: Any, is_right: bool) -> Html:
    kind = {"class_": "num" if is_right else None}
    return tag("td", value, **kind) if i else tag("th", value, scope="row", **kind)


def _numeric(column: Iterable[Any]) -> bool:
    shown = [str(cell) for cell in column if cell not in (None, "")]
    return bool(shown) and all(NUMBER.fullmatch(text) for text in shown)
