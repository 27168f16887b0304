"""The statistics as one page that needs nothing else: three plots and the most frequent classes."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from vissl_lite.hashtags.vocabulary import TagClass

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 240, 56, 22, 10, 40
ROWS, MEMBERS, BARS, LISTED = 50, 12, 20, 3
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1150px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em} h2{font-size:1.1em;margin:1.5em 0 .3em}
.plots{display:flex;flex-wrap:wrap;gap:1em} figure{margin:0} figcaption{font-weight:600}
svg{max-width:100%;height:auto;font:11px system-ui,sans-serif;fill:#555}
.line{fill:none;stroke:#4e79a7;stroke-width:2}
.grid{stroke:#e6e6e6} .bar{fill:#4e79a7} .bar2{fill:#f28e2b}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.2em .8em;text-align:left;border-bottom:1px solid #eee}
td{white-space:pre-wrap} .n{text-align:right} .wide{overflow-x:auto}
@media(max-width:600px){th,td{padding:.2em .35em}}
"""


def page(numbers: dict[str, Any], classes: Sequence[TagClass]) -> str:
    """HTML of `statistics.statistics`; what comes from the captions is escaped."""
    rows = "".join(
        f"<tr><td>{escape(k)}<td class='n'>{escape(v)}" for k, v in facts(numbers).items()
    )
    plots = (
        _figure("Tags by rank", _line(numbers["rank_frequency"], "rank", "images", log_y=True))
        + _figure(
            "Uses that classes cover", _line(numbers["cumulative"], "classes", "uses of tags")
        )
        + _figure("Tags and classes per image", _bars(numbers))
    )
    synsets = any(each.synset for each in classes[:ROWS])
    head = f"<tr><th class='n'>id<th>class<th class='n'>images<th>members{'<th>synset' * synsets}"
    table = "".join(_row(i, each, synsets) for i, each in enumerate(classes[:ROWS]))
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'><title>Hashtags</title>"
        f"<style>{STYLE}</style><h1>{len(classes):,} classes of hashtags</h1>"
        f"<table>{rows}</table><h2>Frequencies</h2><div class='plots'>{plots}</div>"
        f"<h2>The first {min(ROWS, len(classes))} classes</h2>"
        f"<div class='wide'><table>{head}{table}</table></div></html>\n"
    )


def facts(numbers: dict[str, Any]) -> dict[str, str]:
    """What a table shows: names and formatted numbers."""
    images, tags = numbers["images"], numbers["tags"]
    found = {
        "images": f"{images['all']:,}",
        "  without a tag": _share(images["without a tag"], images["all"]),
        "  without a class": _share(images["without a class"], images["all"]),
        "tags": f"{tags['all']:,}",
        **_without_class(numbers),
        "uses of tags": f"{tags['uses']:,}",
        "  covered by the classes": f"{numbers['coverage']['uses']:.2%}",
        **_classes(numbers),
    }
    if targets := numbers.get("targets"):
        found["targets with a class"] = f"{targets['with a class']:,} of {targets['all']:,}"
    odd = {
        "rows skipped, without an image": images["skipped"].get("without image", 0),
        "rows skipped, malformed": images["skipped"].get("malformed", 0),
        "empty captions": images["with an empty caption"],
        "texts mended, not UTF-8": images["with text that is not UTF-8"],
        "texts of CSV above 64 KB": images["with a text of CSV above 64 KB"],
    }
    return found | {name: f"{count:,}" for name, count in odd.items() if count}


def _without_class(numbers: dict[str, Any]) -> dict[str, str]:
    share = _share(numbers["tags"]["left out"], numbers["tags"]["all"])
    missed = numbers.get("not in the vocabulary")
    if missed is None:
        return {"  blocked, no target or no noun": share}
    listed = ", ".join(f"#{tag} {count:,}" for tag, count in missed[:LISTED])
    return {"  not in the vocabulary": share} | ({"    most frequent": listed} if listed else {})


def _classes(numbers: dict[str, Any]) -> dict[str, str]:
    classes = numbers["classes"]
    if "not in the vocabulary" in numbers:
        with_image = _share(classes["with an image"], classes["kept"])
        return {"classes": f"{classes['kept']:,}", "  with an image": with_image}
    return {
        "classes": f"{classes['kept']:,} of {classes['members']:,} tags",
        "  of several tags": f"{classes['merged']:,}",
        "  dropped, below --min-count": f"{classes['below min-count']:,}",
        "  dropped, behind --top": f"{classes['behind top']:,}",
    }


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / max(whole, 1):.2%})"


def _row(number: int, each: TagClass, synset: bool) -> str:
    members = ", ".join(f"{tag} {count:,}" for tag, count in each.members[:MEMBERS])
    more = f", {len(each.members) - MEMBERS} more" if len(each.members) > MEMBERS else ""
    return (
        f"<tr><td class='n'>{number}<td>#{escape(each.name)}<td class='n'>{each.images:,}"
        f"<td>{escape(members)}{more}{f'<td>{escape(each.synset)}' * synset}"
    )


def _figure(title: str, drawing: str) -> str:
    return (
        f"<figure><figcaption>{title}</figcaption>"
        f"<svg width='{WIDTH}' height='{HEIGHT}' viewBox='0 0 {WIDTH} {HEIGHT}' role='img'"
        f" aria-label='{title}'>{drawing}</svg></figure>"
    )


def _line(points: Sequence[tuple[int, float]], x: str, y: str, log_y: bool = False) -> str:
    """A curve over the logarithm of the rank; y from 1 on logarithmic, or from 0 to 1."""
    most_x = _decades(max(rank for rank, _ in points))
    most_y = _decades(max(value for _, value in points)) if log_y else 1.0
    places = [
        (_x(math.log10(rank) / most_x), _y((math.log10(v) if log_y else v) / most_y))
        for rank, v in points
    ]
    if len(places) == 1:
        places *= 2
    ticks_x = [(_x(i / most_x), _power(i)) for i in range(most_x + 1)]
    if log_y:
        ticks_y = [(_y(i / most_y), _power(i)) for i in range(int(most_y) + 1)]
    else:
        ticks_y = [(_y(i / 4), f"{25 * i} %") for i in range(5)]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    return _axes(ticks_x, ticks_y, x, y) + f"<polyline class='line' points='{path}'/>"


def _bars(numbers: dict[str, Any]) -> str:
    """Share of images with 0, 1, 2, ... tags and classes; the last bar is the rest."""
    shares = [_shares(numbers[f"{what}_per_image"]) for what in ("tags", "classes")]
    most = 0.04 * math.ceil(max(map(max, shares)) / 0.04)  # four lines at whole percents
    bars, width = max(map(len, shares)), (WIDTH - LEFT - RIGHT) / max(map(len, shares))
    drawn = "".join(
        f"<rect class='{kind}' x='{LEFT + width * (i + shift):.1f}' y='{_y(share / most):.1f}'"
        f" width='{width * 0.4:.1f}' height='{_y(0) - _y(share / most):.1f}'>"
        f"<title>{name}: {share:.2%} of the images have {i}</title></rect>"
        for row, kind, name, shift in zip(shares, ("bar", "bar2"), ("tags", "classes"), (0.1, 0.5))
        for i, share in enumerate(row)
    )
    every = max(1, bars // 8)
    ticks_x = [(LEFT + width * (i + 0.5), f"{i}") for i in range(0, bars, every)]
    ticks_y = [(_y(i / 4), f"{25 * i * most:.0f} %") for i in range(5)]
    return _axes(ticks_x, ticks_y, "tags (blue), classes (orange)", "images") + drawn


def _shares(histogram: Sequence[int]) -> list[float]:
    shown = [*histogram[:BARS], sum(histogram[BARS:])] if len(histogram) > BARS else histogram
    return [count / sum(histogram) for count in shown]


def _axes(
    ticks_x: Sequence[tuple[float, str]], ticks_y: Sequence[tuple[float, str]], x: str, y: str
) -> str:
    bottom, right, middle = HEIGHT - BOTTOM, WIDTH - RIGHT, (TOP + HEIGHT - BOTTOM) / 2
    vertical = "".join(
        f"<line class='grid' x1='{at:.1f}' x2='{at:.1f}' y1='{TOP}' y2='{bottom}'/>"
        f"<text x='{at:.1f}' y='{bottom + 15}' text-anchor='middle'>{text}</text>"
        for at, text in ticks_x
    )
    horizontal = "".join(
        f"<line class='grid' x1='{LEFT}' x2='{right}' y1='{at:.1f}' y2='{at:.1f}'/>"
        f"<text x='{LEFT - 5}' y='{at + 4:.1f}' text-anchor='end'>{text}</text>"
        for at, text in ticks_y
    )
    names = (
        f"<text x='{(LEFT + right) / 2}' y='{HEIGHT - 6}' text-anchor='middle'>{x}</text>"
        f"<text transform='rotate(-90)' x='{-middle}' y='12' text-anchor='middle'>{y}</text>"
    )
    return vertical + horizontal + names


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def _decades(value: float) -> int:
    return max(1, math.ceil(math.log10(value)))


def _power(exponent: int) -> str:
    return f"{10**exponent:,}" if exponent < 5 else f"1e{exponent}"
