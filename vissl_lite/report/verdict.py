"""Whether the embeddings have collapsed, in words, from what the hook `diagnose` measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vissl_lite import HEADS, HOOKS, LOSSES
from vissl_lite.errors import ConfigError
from vissl_lite.hooks._verdicts import VERDICTS, finding, invariance
from vissl_lite.report.page import Html, section, tag
from vissl_lite.report.runs import Run, number

SHOWN = 10  # warnings
WITH_TARGETS = ("label",)  # where the settings of a loss decide: both labels and tags draw together


def diagnosis(runs: Sequence[Run]) -> Html:
    """What the last records say, and what the runs warned of."""
    shown = [_of(run, run.name if len(runs) > 1 else "") for run in runs]
    return section("Diagnosis", shown)


def _of(run: Run, name: str) -> list[Html]:
    title, text, good = judge(run)
    head = f"{name}: {title}" if name else title
    kind = "verdict" if good else "verdict warning"
    box = tag("p", tag("strong", head), f" {text}", class_=kind)
    others = [w for w in run.warnings if good or not w.startswith(tuple(VERDICTS))]
    if not others:
        return [box]
    more = len(others) - SHOWN
    rest = tag("p", f"And {more} more warnings, in metrics.jsonl.") if more > 0 else Html()
    warned = tag("ul", [tag("li", warning) for warning in others[:SHOWN]])
    return [box, tag("p", "The run warned:"), warned, rest]


def judge(run: Run) -> tuple[str, str, bool]:
    """(verdict, why, whether it is a good one) from the newest training record.

    A finding is a verdict here once `diagnose` would tell it: in its last `patience` records.
    """
    measured = [r for r in run.kind("train") if "embedding_std" in r]
    if not measured:
        text = "The hook diagnose measured nothing: add it to hooks, and train past one log line."
        return "No verdict.", text, True
    last = _numbers(measured[-1])
    try:
        names = _findings(run, measured)
    except ConfigError as error:
        return "No verdict.", f"The config cannot be read here: {error.problems[0]}", True
    if names is None:
        text = f"The loss uses labels or tags, which may draw images together. {_healthy(last)}"
        return "No verdict.", text, True
    if names and names[0] and len(set(names)) == 1:
        advice = next((w for w in run.warnings if w.startswith(f"{names[0]}:")), "")
        text = f"{advice.partition('. ')[2]}." if advice else ""
        return (
            f"{names[0][0].upper()}{names[0][1:]}:",
            f"{VERDICTS[names[0]][0].format_map(last)}. {text}",
            False,
        )
    return "No sign of collapse.", _healthy(last), True


def _findings(run: Run, measured: list[dict[str, Any]]) -> list[str | None] | None:
    """Of the last records that make a verdict; None where the loss is to have none."""
    config = run.config
    if getattr(LOSSES[config.loss["name"]], "needs", WITH_TARGETS):
        return None
    hook: Any = HOOKS.build(config.hooks.get("diagnose") or {}, "hooks.diagnose")
    recent = measured[-hook.patience :]
    log_k = _log_k(config.heads)
    return [finding(_numbers(r), log_k, hook.limits) for r in recent]


def _log_k(heads: list) -> float | None:
    """ln of the number of prototypes, the mean over several sets; None without prototypes."""
    last: dict[str, Any] = HEADS.check(heads[-1], "heads") if heads else {"name": ""}
    if last["name"] != "prototypes":
        return None
    counts = last["num_prototypes"]
    counts = [counts] if isinstance(counts, int) else counts
    return sum(map(math.log, counts)) / len(counts)


def _healthy(r: dict[str, Any]) -> str:
    """The numbers in words."""
    text = (
        f"The embeddings have a spread of {r['embedding_std']:.2f} (1: over the whole sphere, 0:"
        f" one point) and use about {r['effective_rank']:.0f} directions."
    )
    if "same_image_cosine" in r:
        same, other = (
            round(r[f"{pair}_image_cosine"], 2) + 0.0  # never -0.00
            for pair in ("same", "other")
        )
        text += (
            f" Two crops of one image have a cosine of {same:.2f}, crops of two images {other:.2f}:"
            f" {invariance(r):.0%} of the way from no invariance to crops that coincide."
        )
    return text


def _numbers(record: dict[str, Any]) -> dict[str, Any]:
    return {key: number(value) for key, value in record.items() if key != "kind"}
