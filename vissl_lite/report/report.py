"""The report of a run, or of several: sections put together to a page.

Run (config, metrics.jsonl) -> about, diagnosis, evaluations, training, speed
its source and its views    -> the contact sheet, tag frequencies
its newest checkpoint       -> predicted tags, neighbours, map, prototypes, confusion
several runs                -> the same, with views, neighbours and maps side by side
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from vissl_lite.errors import ConfigError
from vissl_lite.io import replace_text
from vissl_lite.report.about import about, compared
from vissl_lite.report.beside import beside
from vissl_lite.report.confusion import confusion
from vissl_lite.report.curves import evaluations, speed, training
from vissl_lite.report.frequencies import frequencies
from vissl_lite.report.left_out import or_why
from vissl_lite.report.look import Looker
from vissl_lite.report.maps import feature_map
from vissl_lite.report.neighbours import neighbours
from vissl_lite.report.page import Html, page, section, tag
from vissl_lite.report.prototypes import prototypes
from vissl_lite.report.runs import Run, told_apart
from vissl_lite.report.sheet import sheet_of
from vissl_lite.report.tags import tags
from vissl_lite.report.verdict import diagnosis

MOST_RUNS = 8  # colours and dashes


def write_report(
    folders: Sequence[str | Path], file: Path, device: torch.device, pictures: bool = True
) -> list[str]:
    """Writes the page, whole or not at all, and returns what was left out, in sentences.

    Args:
        folders: of one run, or of several that are to be compared.
        device: where features are computed.
        pictures: without them nothing but the records is read.

    Raises:
        ConfigError: a folder is no run, or there are too many.
    """
    if len(folders) > MOST_RUNS:
        raise ConfigError(f"report: {len(folders)} runs; at most {MOST_RUNS} can be told apart")
    runs = told_apart([Run.read(folder) for folder in folders])
    missing: list[str] = []
    if len(runs) == 1:
        text = of_one(runs[0], device, pictures, missing)
    else:
        text = of_several(runs, device, pictures, missing)
    replace_text(file, text)
    return missing


def of_one(run: Run, device: torch.device, pictures: bool, missing: list[str]) -> str:
    """The page of one run; `missing` takes sentences about what is left out."""
    shown = [about(run), diagnosis([run]), evaluations([run]), training([run]), speed([run])]
    if pictures:
        shown.append(or_why("Views", lambda: _views(run), missing))
        shown.append(or_why("Tag frequencies", lambda: frequencies(run), missing))
        shown.append(or_why("Predicted tags", lambda: tags(run, device), missing))
        shown += _looked(run, device, missing)
    return page(f"{run.recipe or run.name}: report", _whole(shown, missing), lead(run))


def lead(run: Run) -> str:
    """The state and the result that the recipe is about, in one line."""
    evaluation, _, metric = str(run.tree.get("objective", "")).partition(".")
    found = run.evaluations().get(evaluation, {}).get(metric)
    result = f" {evaluation} {metric}: {found[-1][1]:.4f}." if found else ""
    return f"Run {run.name}: {run.state}.{result}"


def of_several(
    runs: Sequence[Run], device: torch.device, pictures: bool, missing: list[str]
) -> str:
    """The page that compares runs."""
    shown = [compared(runs), diagnosis(runs), evaluations(runs), training(runs), speed(runs)]
    if pictures:
        shown += beside(runs, device, missing)
    lead = "Prototypes, confusion and tags are in the report of each run by itself."
    return page(f"{len(runs)} runs compared", _whole(shown, missing), lead)


def _whole(shown: Sequence[Html | None], missing: Sequence[str]) -> list[Html]:
    """The sections that there are, and what is left out."""
    why = section("Left out", tag("ul", [tag("li", text) for text in missing]))
    return [part for part in (*shown, why if missing else None) if part]


def _views(run: Run) -> Html | None:
    content = sheet_of(run)
    return section("Views", content) if content else None


def _looked(run: Run, device: torch.device, missing: list[str]) -> list[Html | None]:
    """What needs features."""
    try:
        looker = Looker(run, device)
    except ConfigError as error:
        missing.append(f"Neighbours, map, prototypes and confusion: {error.problems[0]}.")
        return []
    shown: list[Html | None] = []

    def add() -> None:
        test = looker.split("test")
        look = test or looker.data()
        shown.extend([neighbours(look), feature_map(look), prototypes(look, looker.config.heads)])
        shown.append(confusion(looker.split("train"), test))
        if shown[-1] is None:
            missing.append(
                "Confusion of a linear probe: it needs labelled.train and labelled.test with labels"
                " of two classes or more."
            )

    or_why("Neighbours, map, prototypes and confusion", add, missing)
    return shown
