"""Pictures of several runs side by side: their views, neighbours of the same images, their maps.

Shape suffixes: N images that a run looked at, K neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vissl_lite.errors import ConfigError
from vissl_lite.parallel.agreement import flat
from vissl_lite.report.left_out import or_why
from vissl_lite.report.look import Look, Looker
from vissl_lite.report.maps import words_and_map
from vissl_lite.report.neighbours import NEIGHBOURS, chance, nearest, purity, queries, row
from vissl_lite.report.page import Html, html, section, table, tag
from vissl_lite.report.runs import Run
from vissl_lite.report.sheet import sheet_of

SHOWN = 3  # neighbours: as many as stand in a line with the image asked for


@dataclass
class Seen:
    """What one run looked at; `entry` of its config made the source of these images."""

    name: str
    entry: dict[str, Any]
    look: Look


def beside(runs: Sequence[Run], device: torch.device, missing: list[str]) -> list[Html | None]:
    """The sections; `missing` takes sentences about what is left out of them."""
    views = _views(runs, missing)
    found = [
        or_why(f"Neighbours and map of {run.name}", lambda run=run: _seen(run, device), missing)
        for run in runs
    ]
    seen = [one for one in found if one]
    return [views, *([_neighbours(seen), _maps(seen)] if seen else [])]


def _seen(run: Run, device: torch.device) -> Seen:
    looker = Looker(run, device)
    test = looker.split("test")
    look, entry = (test, run.config.labelled.test) if test else (looker.data(), None)
    if len(look.indices_N) < 2:
        raise ConfigError("there is one image only")
    return Seen(run.name, entry or run.config.data.source, look)


def _views(runs: Sequence[Run], missing: list[str]) -> Html | None:
    """A contact sheet each; runs with the same one share it."""
    found: dict[Html, list[str]] = {}
    for run in runs:
        sheet = or_why(f"Views of {run.name}", lambda run=run: sheet_of(run), missing)
        if sheet:
            found.setdefault(sheet, []).append(run.name)
    shown = [(", ".join(names), sheet) for sheet, names in found.items()]
    return section("Views", _columns(shown)) if shown else None


def _neighbours(seen: Sequence[Seen]) -> Html:
    """For each image that is asked for, a line of every run."""
    looks = [one.look for one in seen]
    found = [nearest(look.x_ND, min(NEIGHBOURS, len(look.indices_N) - 1)) for look in looks]
    lines = [
        _columns((seen[i].name, _line(looks[i], n, *found[i])) for i, n in places.items())
        for places in asked(seen)
    ]
    words = (
        "Cosine of the features that feed the heads, seen as in evaluations. The first picture of a"
        " line is the one asked for; runs that look at the same images are asked for the same one."
    )
    words += " Neighbours of another class are marked ≠." if any(k.labelled for k in looks) else ""
    numbers = _numbers(seen, [index_NK for _, index_NK in found])
    return section("Nearest neighbours", tag("p", words), numbers, lines)


def _line(look: Look, n: int, cosine_NK: Tensor, index_NK: Tensor) -> Html:
    return row(look, n, cosine_NK[n, :SHOWN], index_NK[n, :SHOWN])


def asked(seen: Sequence[Seen]) -> list[dict[int, int]]:
    """For each image that is asked for: number of the run -> place in its look.

    All runs whose source has the same config are asked for the same images.
    """
    groups: dict[tuple, dict[int, Look]] = {}
    for i, one in enumerate(seen):
        groups.setdefault(tuple(sorted(flat(one.entry).items())), {})[i] = one.look
    return [places for group in groups.values() for places in _asked(group)]


def _asked(looks: Mapping[int, Look]) -> list[dict[int, int]]:
    first = next(iter(looks.values()))
    common = set.intersection(*(set(look.indices_N) for look in looks.values()))
    kept = [n for n, index in enumerate(first.indices_N) if index in common]
    few = replace(first, indices_N=[first.indices_N[n] for n in kept], label_N=first.label_N[kept])
    wanted = [few.indices_N[n] for n in queries(few)]
    return [{i: look.indices_N.index(index) for i, look in looks.items()} for index in wanted]


def _numbers(seen: Sequence[Seen], indices: Sequence[Tensor]) -> Html:
    """How many neighbours are of the class of their image, a row per run."""
    rows = [
        [one.name, one.look.weights, one.look.origin, *_shares(one.look, index_NK)]
        for one, index_NK in zip(seen, indices)
    ]
    head = ["run", "weights", "images", f"{NEIGHBOURS} nearest of the same class", "by chance"]
    return table("Neighbours over all images", head, rows)


def _shares(look: Look, index_NK: Tensor) -> list[str]:
    if not look.labelled:
        return ["", ""]
    label_N = look.label_N
    return [f"{purity(label_N, index_NK).mean().item():.1%}", f"{chance(label_N):.1%}"]


def _maps(seen: Sequence[Seen]) -> Html | None:
    """The words once, if they are the same for all."""
    drawn = [(one.name, found) for one in seen if (found := words_and_map(one.look))]
    if not drawn:
        return None
    words = list(dict.fromkeys(text for _, (text, _) in drawn))
    alike = len(words) == 1
    shown = [(name, drawing if alike else html([text, drawing])) for name, (text, drawing) in drawn]
    turned = tag("p", "The map of one run may be turned or mirrored against that of another.")
    return section("Map of the features", words if alike else None, turned, _columns(shown))


def _columns(shown: Iterable[tuple[str, Html]]) -> Html:
    """Side by side, one below the other on a narrow screen, each with the name of its run."""
    cells = [tag("figure", tag("figcaption", name), content) for name, content in shown]
    return tag("div", cells, class_="beside")
