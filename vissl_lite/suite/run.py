"""The evaluations of one subject: those that are done are read, the others run, each is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from vissl_lite.config import Config
from vissl_lite.engine.bench import Bench
from vissl_lite.engine.build import build_model
from vissl_lite.engine.evaluate import Evaluations, load_model
from vissl_lite.engine.journal import device_name
from vissl_lite.engine.numerics import Numerics
from vissl_lite.errors import ConfigError, NonFiniteLoss
from vissl_lite.overrides import compose
from vissl_lite.parallel.collectives import all_reduce_sum, on_rank_zero, rank
from vissl_lite.parallel.failure import shared_failure
from vissl_lite.parallel.process import choose_device
from vissl_lite.suite.results import Result, Store, digest, settings_of
from vissl_lite.suite.subjects import Subject

RECIPE = "config=evaluate/suite"


@dataclass
class Job:
    """A subject with its config, and what is known of it.

    Attributes:
        settings: of each evaluation, in the order of the config.
        found: results that were there before.
    """

    subject: Subject
    config: Config
    settings: dict[str, dict[str, Any]]
    found: dict[str, Result]

    @classmethod
    def of(cls, subject: Subject, words: Sequence[str], store: Store) -> Job:
        """All ranks call it together.

        Raises:
            ConfigError: what is wrong with the config.
        """
        config = config_of(subject, words)
        settings = {name: settings_of(config, name) for name in config.evaluations}
        found = on_rank_zero(
            lambda: {
                name: result
                for name, given in settings.items()
                if (result := store.find(name, subject.identity, given))
            }
        )
        found = {name: replace(r, label=subject.label) for name, r in found.items()}
        return cls(subject, config, settings, found)

    @property
    def missing(self) -> list[str]:
        return [name for name in self.settings if name not in self.found]

    def evaluations(self, out: Path) -> Evaluations | None:
        """Those that are not done.

        Raises:
            ConfigError: wrong settings, or labelled images are missing.
        """
        if not self.missing:
            return None
        entries = {name: self.config.evaluations[name] for name in self.missing}
        config = replace(self.config, evaluations=entries)
        name = f"{digest(self.subject.identity)[:12]}"
        return Evaluations(config, choose_device(config.device), out / "files" / name)

    def mistakes(self, out: Path) -> dict[str, list[str]]:
        """What does not fit the network, by evaluation that is not done; without weights.

        Raises:
            ConfigError: as `evaluations`.
        """
        evaluations = self.evaluations(out)
        if evaluations is None:
            return {}
        train = evaluations.sources.get("train")
        with torch.device("meta"):
            model = build_model(self.config, train and train.num_classes)
        bench = evaluations.bench(model, Numerics("fp32", "contiguous", ""), lambda text: None)
        checks = {n: e.check for n, e in evaluations.entries.items() if hasattr(e, "check")}
        return {name: wrong for name, check in checks.items() if (wrong := _problems(check, bench))}


def check_fits(jobs: Sequence[Job], out: Path) -> None:
    """
    Raises:
        ConfigError: wrong settings, labelled images are missing, or an evaluation that fits none of
            the networks; one that fits some is a result of each of the others.
    """
    wrong: dict[str, list[str]] = {}
    fits: set[str] = set()
    seen: dict[str, dict[str, list[str]]] = {}
    for job in jobs:
        alike = digest([job.settings, job.missing])
        if alike not in seen:
            seen[alike] = job.mistakes(out)
        wrong |= seen[alike]
        fits |= job.settings.keys() - seen[alike].keys()
    if problems := [p for name in wrong if name not in fits for p in wrong[name]]:
        raise ConfigError(*dict.fromkeys(problems))


def _problems(check: Callable[[Bench], None], bench: Bench) -> list[str]:
    try:
        check(bench)
    except ConfigError as error:
        return error.problems
    return []


def config_of(subject: Subject, words: Sequence[str]) -> Config:
    """The config of the evaluation recipe around the weights of a subject.

    Args:
        words: `key=value`, as on the command line of the recipe.
    """
    recipe = [] if any(word.startswith("config=") for word in words) else [RECIPE]
    own = [*recipe, f"init={subject.home}"]
    if subject.init is None:
        own.append(
            f"seed={yaml.safe_load((Path(subject.home) / 'config.yaml').read_text())['seed']}"
        )
    given = {word.partition("=")[0] for word in words}
    config = compose([*(w for w in own if w.partition("=")[0] not in given), *words])
    if not config.evaluations:
        raise ConfigError("evaluations: none given; add evaluations=[knn,linear]")
    return replace(config, init=subject.init)


def results_of(
    job: Job, store: Store, out: Path, say: Callable[[str], None]
) -> dict[str, Result] | None:
    """By evaluation; None if the subject's run has removed it meanwhile. All ranks call it."""
    if job.found:
        say(f"{job.subject}: {', '.join(job.found)} done before")
    evaluations = job.evaluations(out)
    results = dict(job.found)
    if evaluations is None:
        return results
    bench = _bench(job, evaluations, say)
    if bench is None:
        return None
    for name, entry in evaluations.entries.items():
        result = _evaluated(job, name, entry, bench)
        if rank() == 0:
            store.keep(result)
        results[name] = result
        say(f"{job.subject}: {_in_words(result)}")
    return {name: results[name] for name in job.settings}


def _bench(job: Job, evaluations: Evaluations, say: Callable[[str], None]) -> Bench | None:
    """What its evaluations look at, None on all ranks if the weights are not there any more."""
    train = evaluations.sources.get("train")
    loaded, failed = None, None
    try:
        loaded = load_model(job.config, train and train.num_classes, evaluations.device)
    except (ConfigError, OSError) as error:
        failed = error
    if all_reduce_sum(torch.tensor([float(failed is not None)])).item():
        if on_rank_zero(lambda: job.subject.gone):
            return None
        raise failed or ConfigError(f"{job.subject}: another process could not load it")
    assert loaded is not None
    model, numerics, notes = loaded
    for text in notes:
        say(f"{job.subject}: {text}")
    return evaluations.bench(model, numerics, lambda text: say(f"{job.subject}: {text}"))


def _evaluated(job: Job, name: str, entry: Any, bench: Bench) -> Result:
    """What the labels do not allow, or a loss that is not finite, is a result, too."""
    start, metrics, failed = time.perf_counter(), {}, None
    try:
        metrics = entry.evaluate(bench)
    except (ConfigError, NonFiniteLoss) as error:
        failed = error
    if error := shared_failure(failed, f"{name} of {job.subject.identity}"):
        metrics = {}
    problem = "; ".join(str(error).splitlines()) if error else None
    subject = job.subject
    return Result(
        name,
        subject.label,
        subject.identity,
        job.settings[name],
        subject.run,
        subject.step,
        subject.epoch,
        {key: float(value) for key, value in metrics.items()},
        problem,
        round(time.perf_counter() - start, 3),
        device_name(bench.device),
        time.time(),
    )


def _in_words(result: Result) -> str:
    if result.main is None:
        return f"{result.evaluation} is not possible: {result.problem}"
    metric, value = result.main
    return f"{result.evaluation} {metric} {value:.4f} ({result.seconds:,.0f} s)"
