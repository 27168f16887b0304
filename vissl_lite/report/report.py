"""The report of a run, or of several: sections put together to a page.

Run (config, metrics.jsonl) -> about, diagnosis, evaluations, training, speed
its source and its views    -> the contact sheet, tag frequencies
its newest checkpoint       -> predicted tags, neighbours, map, prototypes, confusion
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from vissl_lite.engine import checkpoint
from vissl_lite.errors import ConfigError
from vissl_lite.io import replace_text
from vissl_lite.report.about import about, compared
from vissl_lite.report.confusion import confusion
from vissl_lite.report.curves import evaluations, speed, training
from vissl_lite.report.frequencies import frequencies
from vissl_lite.report.look import Looker
from vissl_lite.report.maps import feature_map
from vissl_lite.report.neighbours import neighbours
from vissl_lite.report.page import Html, page, section, tag
from vissl_lite.report.prototypes import prototypes
from vissl_lite.report.runs import Run, told_apart
from vissl_lite.report.sheet import sheet
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
    text = of_one(runs[0], device, pictures, missing) if len(runs) == 1 else of_several(runs)
    replace_text(file, text)
    return missing


def of_one(run: Run, device: torch.device, pictures: bool, missing: list[str]) -> str:
    """The page of one run; `missing` takes sentences about what is left out."""
    shown = [about(run), diagnosis([run]), evaluations([run]), training([run]), speed([run])]
    if pictures:
        shown.append(_or_why("Views", lambda: _views(run), missing))
        shown.append(_or_why("Tag frequencies", lambda: frequencies(run), missing))
        shown.append(_or_why("Predicted tags", lambda: tags(run, device), missing))
        shown += _looked(run, device, missing)
    if missing:
        shown.append(section("Left out", tag("ul", [tag("li", why) for why in missing])))
    title = run.recipe or run.name
    return page(f"{title}: report", [s for s in shown if s], lead(run))


def lead(run: Run) -> str:
    """The state and the result that the recipe is about, in one line."""
    evaluation, _, metric = str(run.tree.get("objective", "")).partition(".")
    found = run.evaluations().get(evaluation, {}).get(metric)
    result = f" {evaluation} {metric}: {found[-1][1]:.4f}." if found else ""
    return f"Run {run.name}: {run.state}.{result}"


def of_several(runs: Sequence[Run]) -> str:
    """The page that compares runs."""
    parts = [compared(runs), diagnosis(runs), evaluations(runs), training(runs), speed(runs)]
    lead = "Views, neighbours and maps are in the report of each run by itself."
    return page(f"{len(runs)} runs compared", [part for part in parts if part], lead)


def _views(run: Run) -> Html | None:
    if run.config.train.epochs == 0:  # nothing was trained
        return None
    newest = run.checkpoint
    return sheet(run.config, checkpoint.read(newest / "state.pt").get("way") if newest else None)


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

    _or_why("Neighbours, map, prototypes and confusion", add, missing)
    return shown


def _or_why(name: str, make: Callable[[], Html | None], missing: list[str]) -> Html | None:
    """A section, or the sentence that says why there is none."""
    try:
        return make()
    except ConfigError as error:
        missing.append(f"{name}: {error.problems[0]}.")
        return None
