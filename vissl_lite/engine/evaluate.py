"""Evaluations of a model: inside a run, and as a job of their own (`train.epochs: 0`)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from vissl_lite import EVALUATIONS
from vissl_lite.config import Config
from vissl_lite.data.loader import choose_workers
from vissl_lite.engine import weights
from vissl_lite.engine.bench import Bench, labelled_sources, labelled_views
from vissl_lite.engine.build import build_hooks, build_model
from vissl_lite.engine.combinations import check_same_images
from vissl_lite.engine.journal import Journal, device_name
from vissl_lite.engine.numerics import Numerics, apply_layout
from vissl_lite.errors import ConfigError, NonFiniteLoss
from vissl_lite.hooks.base import Hook
from vissl_lite.io import replace_text
from vissl_lite.layers.norm import average_statistics
from vissl_lite.model import SSLModel
from vissl_lite.parallel.collectives import rank, world_size
from vissl_lite.parallel.process import choose_device


class Evaluations:
    """The evaluations of a config, on its labelled images, for as many models as one likes.

    Raises:
        ConfigError: labelled images are missing, or an evaluation's settings are wrong.
    """

    def __init__(self, config: Config, device: torch.device, folder: Path):
        self.config, self.device, self.folder = config, device, folder
        self.entries: dict[str, Any] = {
            name: EVALUATIONS.build(entry, f"evaluations.{name}")
            for name, entry in config.evaluations.items()
        }
        looking = [e for e in self.entries.values() if not getattr(e, "brings_images", False)]
        by_name = all(getattr(entry, "classes_by_name", False) for entry in looking)
        self.sources = labelled_sources(config, by_name) if looking else {}
        labelled_views(config.labelled)  # a mistake in them is said now, not after an epoch

    def run(
        self,
        model: SSLModel,
        numerics: Numerics,
        note: Callable[[str], None],
        stop_point: Callable[[], None] = lambda: None,
        left_out: Callable[[str, Exception | None], bool] | None = None,
    ) -> Iterator[tuple[str, dict[str, float]]]:
        """(name, metrics) of one evaluation after the other; they share the features.

        Args:
            stop_point: called before each batch and evaluation; may raise to give up.
            left_out: whether an evaluation has no results; takes its name and its error, a mistake
                that shows only now, a loss that is not finite, or None; may raise. None: these
                errors raise.

        Raises:
            ConfigError: as `check`, before anything is computed, or from an evaluation.
            NonFiniteLoss: from an evaluation.
        """
        bench = self.bench(model, numerics, note, stop_point)
        if left_out is None:
            self.check(bench)
        for name, entry in self.entries.items():
            stop_point()
            metrics, failed = {}, None
            try:
                metrics = entry.evaluate(bench)
            except (ConfigError, NonFiniteLoss) as error:
                if left_out is None:
                    raise
                failed = error
            if left_out is None or not left_out(name, failed):
                yield name, metrics

    def check(self, bench: Bench) -> None:
        """
        Raises:
            ConfigError: the settings of an evaluation do not fit the model or the images.
        """
        for entry in self.entries.values():
            if hasattr(entry, "check"):
                entry.check(bench)

    def bench(
        self,
        model: SSLModel,
        numerics: Numerics,
        note: Callable[[str], None],
        stop_point: Callable[[], None] = lambda: None,
    ) -> Bench:
        """What the evaluations look at; all ranks call it together.

        Args:
            model: on the meta device for what `check` alone looks at.

        Raises:
            ConfigError: the ranks do not have the same labelled images.
        """
        if not next(model.parameters()).is_meta:
            average_statistics(model)
            for split, source in self.sources.items():
                check_same_images(source, f"labelled.{split}")
        return Bench(
            model,
            self.config.labelled,
            self.sources,
            device=self.device,
            numerics=numerics,
            config=self.config,
            folder=self.folder,
            workers=choose_workers(self.config.data.workers, self.device),
            backend=self.config.data.backend,
            note=note,
            stop_point=stop_point,
        )


def evaluate_weights(config: Config, run_dir: Path) -> dict[str, float]:
    """Evaluates the weights that `init` names, without training.

    Features are computed in float32 unless `precision` says otherwise. All metrics go to the
    loggers, to `run_dir/results.json`, and as a table to the screen.

    Returns:
        The metrics as `evaluation.metric`.

    Raises:
        ConfigError: no evaluations or no labelled images, or weights that do not fit.
    """
    start, hooks = time.perf_counter(), build_hooks(config)
    evaluations, model, numerics, notes = set_up(config, run_dir)
    device, results = evaluations.device, dict[str, float]()
    with Journal(config, run_dir, resumed_step=0) as journal:
        journal.log(_introduction(config, run_dir, device, numerics, model))
        for text in [*notes, *_idle(hooks)]:
            journal.note(text)
        for name, metrics in evaluations.run(model, numerics, journal.note):
            journal.log({"kind": "eval", "name": name, "step": 0, **metrics})
            results |= {f"{name}.{metric}": value for metric, value in metrics.items()}
            _write(results, run_dir)
        journal.end(None, 0, time.perf_counter() - start)
        for hook in hooks.values():
            hook.after_evaluations(run_dir, device, journal.note)
    if rank() == 0:
        Console(highlight=False).print(table(results))
    return results


def set_up(config: Config, folder: Path) -> tuple[Evaluations, SSLModel, Numerics, list[str]]:
    """The evaluations of a config, and what `load_model` gives for the weights that it names.

    Raises:
        ConfigError: as `evaluate_weights`.
    """
    if not config.evaluations:
        raise ConfigError("evaluations: none given, and train.epochs is 0; add evaluations=knn")
    device = choose_device(config.device)
    evaluations = Evaluations(config, device, folder)
    source = evaluations.sources.get("train")
    return evaluations, *load_model(config, source and source.num_classes, device)


def _idle(hooks: Mapping[str, Hook]) -> list[str]:
    """A note that names the hooks which have nothing to do without training."""
    idle = [
        name
        for name, hook in hooks.items()
        if type(hook).after_evaluations is Hook.after_evaluations
    ]
    return [f"hooks {', '.join(idle)}: nothing to do, for nothing is trained"] if idle else []


def _write(results: dict[str, float], run_dir: Path) -> None:
    """After each evaluation: the next one may take hours and be killed."""
    if rank() == 0:
        replace_text(run_dir / "results.json", json.dumps(results, indent=2) + "\n")


def table(results: dict[str, float]) -> Table:
    """Evaluation, metric, value; one row per metric."""
    shown = Table("evaluation", "metric", box=None, padding=(0, 2, 0, 0))
    shown.add_column("value", justify="right")
    for key, value in results.items():
        name, _, metric = key.partition(".")
        shown.add_row(name, metric, f"{value:.4f}")
    return shown


def load_model(
    config: Config, num_classes: int | None, device: torch.device
) -> tuple[SSLModel, Numerics, list[str]]:
    """The model of a config with the weights that `init` names, in eval mode, and what was loaded.

    Raises:
        ConfigError: there are no such weights, or they do not fit.
    """
    torch.manual_seed(config.seed)
    model = build_model(config, num_classes)
    notes = ["init: no weights given; the model is as it is built"]
    if config.init:
        notes = weights.load_into(model, config.init)
    precision, layout = config.precision, config.memory.memory_format
    numerics = Numerics(
        "fp32" if precision == "auto" else precision,
        "contiguous" if layout == "auto" else layout,
        reason="as given",
    )
    model.to(device).eval()
    apply_layout(model, numerics)
    return model, numerics, notes


def _introduction(
    config: Config, run_dir: Path, device: torch.device, numerics: Numerics, model: SSLModel
) -> dict[str, Any]:
    return {
        "kind": "start",
        "recipe": config.recipe or "",
        "run_dir": str(run_dir),
        "device": device_name(device),
        "precision": numerics.precision,
        "world_size": world_size(),
        "params": sum(p.numel() for p in model.parameters()),
    }
