"""Line charts and bars as inline SVG, drawn by pure functions, with their numbers in a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vissl_lite.report.page import Html, details, html, table, tag

WIDTH, HEIGHT, TOP, BOTTOM = 400, 220, 12, 38  # in the units of the SVG; text is 13 high
LETTER, LINE = 7.0, 15.0  # width and height of text, generously
POINTS, ROWS = 300, 20  # of a drawn line, of a table
DASHES = (None, "8 4", "2 3", "10 3 2 3", "14 5", "5 2 1 2", "1 4", "16 3 4 3")


@dataclass
class Series:
    """A line: values `y` at `x`; where a value is not finite the line has a gap.

    Attributes:
        style: which colour and dash, 0 to 7.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: int = 0


def chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    log: bool = False,
    from_zero: bool = False,
    log_x: bool = False,
) -> Html:
    """A figure: the lines with their names at their ends, and their numbers to unfold.

    Args:
        log: logarithmic scale, if all values are above 0.
        from_zero: the scale begins at 0 at the latest.
        log_x: `x` on a logarithmic scale, from the first to the last; all above 0.
    """
    points = [(x, y) for s in series for x, y in zip(s.x, s.y) if math.isfinite(y)]
    caption = tag("figcaption", title)
    if not points:
        return tag("figure", caption, tag("p", "No finite number was recorded."))
    log = log and min(y for _, y in points) > 0
    across = _across([x for x, _ in points], log_x)
    up = Scale.over([y for _, y in points] + [0.0] * from_zero, log)
    drawing = _drawing(title, series, across, up, x_label)
    return tag("figure", caption, drawing, details("Numbers", numbers(title, series, x_label)))


def _across(x: Sequence[float], log: bool) -> Scale:
    if log:
        return Scale(min(x), max(x) if max(x) > min(x) else 10 * min(x), True)
    return Scale(0.0, max(x) if max(x) > 0 else 1.0)


def numbers(title: str, series: Sequence[Series], x_label: str) -> Html:
    """The same as a table of about 20 rows, the last one included."""
    at = sorted({x for s in series for x in s.x})
    at = [at[i] for i in _evenly(len(at), ROWS)]
    columns = [dict(zip(s.x, s.y)) for s in series]
    names = [s.name or title for s in series]
    rows = [[short(x), *(short(c[x]) if x in c else "" for c in columns)] for x in at]
    return table(f"{title} by {x_label}", [x_label, *names], rows)


def sparkline(values: Sequence[float], width: int = 48) -> str:
    """`▁▃▅▇█`: values from 0 or their minimum to their maximum, for a terminal."""
    blocks = "▁▂▃▄▅▆▇█"
    few = [values[i] for i in _evenly(len(values), width)]
    low, high = min(0.0, *few), max(few)
    span = (high - low) or 1.0
    return "".join(blocks[round((len(blocks) - 1) * (v - low) / span)] for v in few)


def bars(title: str, values: Sequence[float], x_label: str, style: int = 0) -> Html:
    """Bars without names in a given order, such as uses of prototypes."""
    up = Scale(0.0, max([*values, 1e-9]))
    left = _left(up)
    wide = (WIDTH - left - 8) / max(1, len(values))
    drawn = []
    for i, value in enumerate(values):
        y = _y(up, value)
        place = {"x": f"{left + i * wide:.2f}", "width": f"{max(wide * 0.85, 0.4):.2f}"}
        height = f"{HEIGHT - BOTTOM - y:.2f}"
        drawn.append(tag("rect", y=f"{y:.2f}", height=height, fill=f"var(--s{style})", **place))
    head = tag("title", title), tag("desc", f"{len(values)} bars, from {_range(values)}")
    foot = _text(x_label, (left + WIDTH) / 2, HEIGHT - 4, "middle", "soft")
    drawing = tag("svg", head, _grid(up, left, WIDTH - 8), drawn, foot, **_svg(title))
    at = _evenly(len(values), ROWS)
    shown = table(title, ["rank", x_label], [[f"{i + 1}", short(values[i])] for i in at])
    return tag("figure", tag("figcaption", title), drawing, details("Numbers", shown))


# ---------------------------------------------------------------- scales


@dataclass
class Scale:
    """From values to [0, 1]."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def over(cls, values: Sequence[float], log: bool = False) -> Scale:
        """Around these values; from 0, if that costs less than a third of the room."""
        low, high = min(values), max(values)
        if log:
            return cls(low / 1.1, high * 1.1, True)
        if 0 <= low <= high / 3:
            low = 0.0
        room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        return cls(low if low == 0 else low - room, high + room)

    def __call__(self, value: float) -> float:
        low, high, v = self.low, self.high, value
        if self.log:
            low, high, v = (math.log(x) for x in (low, high, v))
        return (v - low) / (high - low)

    @property
    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within [low, high], at most `most` of them."""
    power = math.floor(math.log10((high - low) / most)) if high > low else 0
    for step in (m * 10.0**p for p in range(power, power + 3) for m in (1, 2, 5)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [float(f"{i * step:.12g}") for i in range(first, last + 1)]
    raise AssertionError("a power of ten above the range has at most two multiples in it")


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within [low, high]; also 2 and 5 times them, if there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5), tuple(range(1, 10))):
        found = [m * 10.0**p for p in powers for m in steps if low <= m * 10.0**p <= high]
        if len(found) >= 3:
            return found[:: math.ceil(len(found) / 7)]
    return ticks(low, high)


def short(value: float) -> str:
    """Four digits: 12,345, 0.1235, 5e-05."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


# ---------------------------------------------------------------- drawing


def _drawing(title: str, series: Sequence[Series], across: Scale, up: Scale, x_label: str) -> Html:
    left = _left(up)
    names = [s.name for s in series if s.name]
    right = WIDTH - 8 - (LETTER * max(map(len, names)) + 6 if names else 0)
    head = tag("title", title), tag("desc", _described(series, x_label))
    foot = _text(x_label, (left + right) / 2, HEIGHT - 4, "middle", "soft")
    lines = [_line(s, across, up, left, right) for s in series]
    grid = _grid(up, left, right), _x_ticks(across, left, right)
    return tag("svg", head, grid, foot, lines, _names(series, up, right), **_svg(title))


def _svg(title: str) -> dict[str, str]:
    return {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria_label": title}


def _left(up: Scale) -> float:
    return 10 + LETTER * max(len(short(t)) for t in up.ticks or [up.low])


def _y(up: Scale, value: float) -> float:
    return HEIGHT - BOTTOM - up(value) * (HEIGHT - TOP - BOTTOM)


def _grid(up: Scale, left: float, right: float) -> Html:
    marks = []
    for tick in up.ticks:
        y = f"{_y(up, tick):.1f}"
        marks.append(tag("line", x1=f"{left:.1f}", x2=f"{right:.1f}", y1=y, y2=y, class_="grid"))
        marks.append(_text(short(tick), left - 6, float(y) + 4, "end", "soft"))
    return html(marks)


def _x_ticks(across: Scale, left: float, right: float) -> Html:
    return html(
        [
            _text(
                short(t), left + across(t) * (right - left), HEIGHT - BOTTOM + 16, "middle", "soft"
            )
            for t in (across.ticks if across.log else ticks(across.low, across.high, 5))
        ]
    )


def _line(s: Series, across: Scale, up: Scale, left: float, right: float) -> Html:
    """One path; a dot for each value where there are few."""
    colour, drawn, gap, dots = f"var(--s{s.style % 8})", [], True, []
    for x, y in thinned(list(zip(s.x, s.y)), POINTS):
        if not math.isfinite(y):
            gap = True
            continue
        place = f"{left + across(x) * (right - left):.1f}", f"{_y(up, y):.1f}"
        drawn.append(f"{'M' if gap else 'L'}{place[0]} {place[1]}")
        dots.append(tag("circle", cx=place[0], cy=place[1], r=3, fill=colour))
        gap = False
    dash = DASHES[s.style % 8]
    path = tag("path", d="".join(drawn), class_="line", stroke=colour, stroke_dasharray=dash)
    return html([path, dots if len(dots) <= 15 else None])


def _names(series: Sequence[Series], up: Scale, right: float) -> Html:
    """Each at the end of its line, moved as little as keeps them apart."""
    named = [s for s in series if s.name and math.isfinite(_last(s))]
    at = spread([_y(up, _last(s)) for s in named], LINE, TOP, HEIGHT - BOTTOM)
    x = f"{right + 6:.1f}"
    return html(
        [
            tag("text", s.name, x=x, y=f"{y + 4:.1f}", style=f"fill:var(--s{s.style % 8})")
            for y, s in zip(at, named)
        ]
    )


def spread(wanted: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Places near the wanted ones, in their order, at least `apart` from each other."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed, at = [0.0] * len(wanted), low - apart
    for i in order:
        at = placed[i] = max(wanted[i], at + apart)
    limit = max(high, low + apart * (len(wanted) - 1))
    for i in reversed(order):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - apart
    return placed


def thinned(points: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most about `most` points, the lowest and the highest of each stretch among them."""
    if len(points) <= most:
        return points
    step, kept = math.ceil(2 * len(points) / most), []
    for start in range(0, len(points), step):
        part = range(start, min(start + step, len(points)))
        by_value = sorted(part, key=lambda i: _or_inf(points[i][1]))  # gaps stay
        kept += [points[i] for i in sorted({by_value[0], by_value[-1]})]
    return kept


def _or_inf(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _last(s: Series) -> float:
    return next((y for y in reversed(list(s.y)) if math.isfinite(y)), math.nan)


def _described(series: Sequence[Series], x_label: str) -> str:
    parts = [
        f"{s.name or 'values'}: {len(s.y)} values, {_range(s.y)}, last {short(_last(s))}"
        for s in series
    ]
    return f"By {x_label}. " + "; ".join(parts)


def _range(values: Sequence[float]) -> str:
    finite = [v for v in values if math.isfinite(v)] or [math.nan]
    return f"{short(min(finite))} to {short(max(finite))}"


def _text(content: str, x: float, y: float, anchor: str, class_: str) -> Html:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}"}
    return tag("text", content, text_anchor=anchor, class_=class_, **place)


def _evenly(size: int, most: int) -> list[int]:
    """At most `most` of 0..size-1, the first and the last among them."""
    if size <= most:
        return list(range(size))
    return [round(i * (size - 1) / (most - 1)) for i in range(most)]
