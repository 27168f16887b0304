"""What `vissl-lite bench` is told besides the config of the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from vissl_lite import LOSSES
from vissl_lite.config import Config, Train
from vissl_lite.engine.build import build_source
from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.parallel.collectives import on_rank_zero
from vissl_lite.words import unwritable

Images = Literal["auto", "source", "synthetic", "resident"]
IMAGES: tuple[Images, ...] = ("auto", "source", "synthetic", "resident")
PROFILED = 3  # steps under torch.profiler, after the measured ones


@dataclass(frozen=True)
class Settings:
    """Of the measurement.

    Attributes:
        steps: measured.
        warmup: steps before, whose time is not that of the others: compilation, allocation.
        images: "source", the recipe's; "synthetic", noise in its place; "auto", the recipe's where
            it can be opened; "resident", one batch of noise that is on the device all the time, so
            that data costs nothing.
        trace: file for Perfetto, .json or .json.gz.
        json: file for the results.
    """

    steps: int = 20
    warmup: int = 5
    images: Images = "auto"
    trace: Path | None = None
    json: Path | None = None

    @property
    def all_steps(self) -> int:
        return self.warmup + self.steps + PROFILED


def split_words(
    words: Sequence[str],
    readers: Mapping[str, Callable[[str], Any]] | None = None,
    kind: type = Settings,
    command: str = "bench step",
) -> tuple[Any, list[str]]:
    """The settings among the words of a command line, and the words that are for the training.

    Args:
        readers: what makes a value of each setting's text.
        kind: class of the settings.

    Raises:
        ConfigError: with every setting that is wrong.
    """
    readers = READERS if readers is None else readers
    problems: list[str] = []
    given: dict[str, Any] = {}
    rest = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in readers:
            rest.append(word)
            continue
        try:
            given[key] = readers[key](value)
        except ValueError as error:
            problems.append(f"{command}: {key}={value}: {error}")
    if problems:
        raise ConfigError(*problems)
    return kind(**given), rest


def whole_number(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise ValueError("needs a whole number of at least 1")
    return int(value)


def _images(value: str) -> Images:
    if value not in IMAGES:
        close = did_you_mean(value, IMAGES) or ";"
        raise ValueError(f"unknown{close} there are {', '.join(IMAGES)}")
    return cast(Images, value)


def json_file(value: str) -> Path:
    path = Path(value)
    if not path.name.endswith((".json", ".json.gz")):
        raise ValueError("the file's name must end in .json, of a trace also in .json.gz")
    if problem := unwritable(path):
        raise ValueError(problem)
    return path


READERS: dict[str, Callable[[str], Any]] = {
    "steps": whole_number,
    "warmup": whole_number,
    "images": _images,
    "trace": json_file,
    "json": json_file,
}


def for_measuring(config: Config, settings: Settings) -> tuple[Config, list[str]]:
    """The config of a training that is long enough, writes nothing and has images; and notes.

    Hooks and loggers are left out: what they cost depends on how often they act.
    """
    epochs = max(config.train.epochs, settings.all_steps)  # an epoch has at least one step
    train = cast(Train, replace(config.train, epochs=epochs, max_steps=None))
    config = replace(config, train=train, hooks={}, loggers={}, resume=False)
    if settings.images == "source":
        return config, []
    missing = on_rank_zero(lambda: _missing(config)) if settings.images == "auto" else "as asked"
    if missing is None:
        return config, []
    source = _stand_in(config)
    note = f"images of source {source['name']!r}: {missing}"
    return replace(config, data=replace(config.data, source=source)), [note]


def _missing(config: Config) -> str | None:
    try:
        build_source(config)
    except ConfigError as error:
        return str(error).splitlines()[0]
    return None


def _stand_in(config: Config) -> dict[str, Any]:
    """Noise a seventh larger than the largest crop, as 256 pixels are to 224; images with tags for
    a loss that needs them."""
    loss = LOSSES.check(config.loss, "loss")
    needs = (*getattr(LOSSES[config.loss["name"]], "needs", ()), loss.get("target"))
    if "tags" in needs:
        return {"name": "digits_tags"}
    size = max(group.size for group in config.data.views) * 8 // 7
    return {"name": "synthetic", "size": size, "n": 1_000_000_000}
