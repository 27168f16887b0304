"""`vissl-lite show config=RECIPE [key=value ...] [--out FILE]`: a training before it begins.

Views with what was drawn for them, every schedule over the whole length, the order of batches.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from vissl_lite import SCHEDULES
from vissl_lite.config import Config
from vissl_lite.data.sampler import Order, StepSampler
from vissl_lite.engine.build import build_source, peak_lr
from vissl_lite.errors import ConfigError
from vissl_lite.io import replace_text
from vissl_lite.overrides import compose
from vissl_lite.report.about import shown_card
from vissl_lite.report.charts import Series, chart, short, sparkline
from vissl_lite.report.page import Html, page, section, table, tag
from vissl_lite.report.runs import card
from vissl_lite.report.sheet import sheet
from vissl_lite.words import Parser, check_file

USAGE = """usage: vissl-lite show config=RECIPE [key=value ...] [--out FILE]

--out    the page; default: show.html in this folder
Everything else changes the recipe, as for a run. Nothing is trained.
"""
IN_WORDS = {"lr": "learning rate", "weight_decay": "weight decay"}
POINTS = 400  # of a drawn schedule
GUESS = 1000  # steps per epoch where the images are not here to count


def main(words: Sequence[str]) -> None:
    """Writes the page and prints a short text; `words` are what follows `vissl-lite show`.

    Raises:
        ConfigError: a mistake in them, or in the recipe.
    """
    if not words or {"-h", "--help"} & set(words):
        print(USAGE)
        return
    file, rest = _divide(words)
    config = compose(rest)
    length, why = steps_of(config)
    curves = schedules_of(config, *length)
    views = _views(config, why)
    name = config.recipe or "a training"
    command = shlex.join(["vissl-lite", *rest])
    parts = [_about(config, command, length, why), _schedules(config, curves, length), views]
    replace_text(file, page(f"{name}: before it begins", parts, "Nothing has been trained."))
    print(f"{name}: {in_words(config, *length, guessed=bool(why))}")
    if why:
        print(f"neither views nor numbers of steps: {why}")
    for target, values in curves.items():
        print(f"{target:<16} {sparkline(values)}  {short(min(values))} to {short(max(values))}")
    print(f"wrote {file} ({decimal(file.stat().st_size)})")


def steps_of(config: Config) -> tuple[tuple[int, int], str]:
    """(steps per epoch, steps in all), and why they are a guess; "" where they are none.

    Raises:
        ConfigError: the source is smaller than a batch.
    """
    try:
        source = build_source(config)
    except ConfigError as error:
        return (GUESS, max(1, round(config.train.epochs * GUESS))), error.problems[0]
    size = len(Order.of(source, config.seed))
    sampler = StepSampler(size, config.train.batch_size, 1, start=0, rank=0, world=1)
    steps = sampler.steps_per_epoch
    return (steps, max(1, round(config.train.epochs * steps))), ""


def schedules_of(config: Config, per_epoch: int, total: int) -> dict[str, list[float]]:
    """Target -> its values at evenly spread steps, the first and the last among them."""
    runtime = {"total_steps": total, "steps_per_epoch": per_epoch}
    wheres = [step / total for step in _steps(total)]
    peak, _ = peak_lr(config)
    found = {}
    for target, entry in {"lr": {"name": "constant"}, **config.schedules}.items():
        schedule: Any = SCHEDULES.build(entry, f"schedules.{target}", **runtime)
        factor = peak if target == "lr" else 1.0
        found[target] = [float(schedule(where)) * factor for where in wheres]
    return found


def in_words(config: Config, per_epoch: int, total: int, guessed: bool = False) -> str:
    """`440 steps of 128 images, 11 in each of 40 epochs`."""
    train = config.train
    if guessed:
        return f"{train.epochs:g} epochs in steps of {train.batch_size:,} images"
    stops = f"; stops after {train.max_steps:,}" if (train.max_steps or total) < total else ""
    epochs = "epoch" if train.epochs == 1 else "epochs"
    return (
        f"{total:,} steps of {train.batch_size:,} images, {per_epoch:,} in each of"
        f" {train.epochs:g} {epochs}{stops}"
    )


def _steps(total: int) -> list[int]:
    count = min(POINTS, total)
    return [round(i * (total - 1) / max(1, count - 1)) for i in range(count)]


def _views(config: Config, why: str) -> Html:
    text = f"None can be drawn: {why}." if why else ""
    try:
        return section("Views", tag("p", text) if text else sheet(config))
    except ConfigError as error:
        return section("Views", tag("p", f"None can be drawn: {error.problems[0]}."))


def _about(config: Config, command: str, length: tuple[int, int], why: str) -> Html:
    train, (per_epoch, total) = config.train, length
    counted = {
        "steps per epoch": f"{per_epoch:,}",
        "steps in all": f"{total:,}",
        "images seen in all": f"{total * train.batch_size:,}",
    }
    rows = {
        "epochs": f"{train.epochs:g}",
        **({} if why else counted),
        "images per step, of all processes": f"{train.batch_size:,}",
        "micro-batches per step": f"{train.accumulate:,}",
        "crops per image": f"{sum(group.count for group in config.data.views)}",
        "seed of order and crops": f"{config.seed}",
    }
    text = card(config.recipe or "")
    guess = f"Steps cannot be counted: {why}." if why else None
    return section(
        "What will run",
        shown_card(text) if text else None,
        tag("p", "Command: ", tag("code", command)),
        table("The order of batches", ["", ""], rows.items()),
        tag("p", guess) if guess else None,
        tag("p", f"{peak_lr(config)[1].capitalize()}."),
    )


def _schedules(config: Config, curves: dict[str, list[float]], length: tuple[int, int]) -> Html:
    per_epoch, total = length
    epochs = [step / per_epoch for step in _steps(total)]
    drawn = [
        chart(IN_WORDS.get(target, target).capitalize(), [Series("", epochs, values)], "epoch")
        for target, values in curves.items()
    ]
    return section("Schedules", tag("div", drawn, class_="charts"))


def _divide(words: Sequence[str]) -> tuple[Path, list[str]]:
    """The file that --out names, and the other words."""
    parser = Parser("show")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("show.html"))
    given = parser.parse_intermixed_args(words)
    check_file(given.out, "show --out")
    return given.out, given.words
