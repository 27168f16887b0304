"""`vissl-lite benchmark_suite`: several evaluations on many weights, and one table."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from vissl_lite.errors import ConfigError
from vissl_lite.loggers._format import printable
from vissl_lite.parallel.collectives import on_rank_zero, rank
from vissl_lite.parallel.command import PATIENCE_S, start, without_launch
from vissl_lite.parallel.launch import die_with_parent, processes_to_start
from vissl_lite.parallel.process import adopt_launcher, join_group
from vissl_lite.suite.html import write_html
from vissl_lite.suite.live import has_ended
from vissl_lite.suite.results import Result, Store
from vissl_lite.suite.run import Job, check_fits, results_of
from vissl_lite.suite.subjects import (
    Named,
    Subject,
    check_labels,
    is_weights,
    run_identity,
    subjects_of,
)
from vissl_lite.suite.table import Table, print_table, write_csv
from vissl_lite.words import Parser, results_folder

USAGE = """usage: vissl-lite benchmark_suite WEIGHTS [WEIGHTS ...] [key=value ...] [options]

Several evaluations on many weights, and one table of them all (docs/suite.md). What has been done
is not done again: stopped and started again it goes on, and with more weights or evaluations it
does those.

WEIGHTS is a run (its newest checkpoint), a checkpoint, whatever else vissl_lite.load reads, or
untrained:RUN, the network of a run before training. LABEL=WEIGHTS calls it so in the table.
key=value changes the recipe evaluate/suite: evaluations=[knn,linear], evaluations.knn.k=[20],
'labelled.train={name: image_folder, path: DIR}', device=cpu. config=RECIPE takes another recipe.
launch.processes=N starts N processes on this machine; without it one per GPU, else one.

--out DIR            suite.html, suite.csv and the results; default runs/suite
--every-checkpoint   all complete checkpoints of the runs instead of the newest
--watch              goes on with new checkpoints until the runs have ended
--all                shows every metric instead of the main one of each evaluation
"""
POLL_S = 10.0  # between two looks at a run in progress


def main(words: Sequence[str]) -> int:
    """Returns the exit code: 1 if not one evaluation was possible.

    Raises:
        ConfigError: a mistake in the words or the config, or no such weights.
    """
    if not words or {"-h", "--help"} & set(words):
        print(USAGE)
        return 0
    adopt_launcher()
    own, how = without_launch(words)
    options, settings = _parsed(own)
    device = _device(settings)
    processes = processes_to_start(how, device)
    if processes > 1:
        return start(["benchmark_suite", *own], processes)
    die_with_parent()
    join_group(PATIENCE_S, device)
    suite = Suite(options, settings)
    suite.run()
    if rank() == 0:
        table = suite.table()
        print_table(table, options.all)
        print(f"\n{options.out / 'suite.html'}\n{options.out / 'suite.csv'}")
    return 0 if any(result.metrics for result in suite.results.values()) else 1


class Suite:
    """The weights that the user names, looked at until there is nothing more to do.

    Args:
        settings: `key=value` for the recipe.

    Attributes:
        results: by label, step and evaluation, also those that were done before.
    """

    def __init__(self, options: argparse.Namespace, settings: Sequence[str]):
        self.named: list[Named] = options.weights
        self.every, self.watch, self.out = options.every_checkpoint, options.watch, options.out
        self.settings, self.store = settings, Store(options.out)
        self.results: dict[tuple, Result] = {}
        self.done: list[Subject] = []
        self.names: dict[str, None] = {}  # of evaluations, in the order of the config
        self.command = shlex.join(["vissl-lite", "benchmark_suite", *sys.argv[2:]])

    def run(self) -> None:
        """Once, or until the watched runs have ended; all ranks call it together."""
        while True:
            over = on_rank_zero(self._over)  # before looking: nothing is saved after the end
            jobs = [Job.of(subject, self.settings, self.store) for subject in self._new()]
            self.names |= dict.fromkeys(name for job in jobs for name in job.settings)
            if not self.done:
                check_fits(jobs, self.out)  # mistakes are said before the first image is read
            for job in jobs:
                self._add([*self._earlier(job), *job.found.values()])
            results_folder(self.out, "benchmark_suite --out")
            for job in jobs:
                self._evaluate(job)
            if over:
                return
            time.sleep(POLL_S)

    def table(self) -> Table:
        """Weights in the order of the command."""
        labels, names = [named.label for named in self.named], [*self.names]

        def place(r: Result) -> tuple[int, int, int]:
            return labels.index(r.label), r.step or 0, names.index(r.evaluation)

        return Table.of(sorted(self.results.values(), key=place))

    def _over(self) -> bool:
        runs = [named.run for named in self.named if named.run is not None]
        return not self.watch or all(map(has_ended, runs))

    def _new(self) -> list[Subject]:
        """What has not been looked at yet."""
        found = on_rank_zero(
            lambda: [s for n in self.named for s in subjects_of(n, self.every, self.watch)]
        )
        return [subject for subject in found if subject not in self.done]

    def _evaluate(self, job: Job) -> None:
        self.done.append(job.subject)
        results = results_of(job, self.store, self.out, say)
        if results is None:
            say(f"{job.subject}: its run has removed it meanwhile")
        self._add((results or {}).values())
        if rank() == 0:
            write_csv(self.table(), self.out / "suite.csv")
            write_html(self.table(), self.command, self.out / "suite.html")

    def _add(self, results: Iterable[Result]) -> None:
        for result in results:
            self.results[result.label, result.step, result.evaluation] = result

    def _earlier(self, job: Job) -> list[Result]:
        """Of checkpoints that the run has removed since, where all of them are asked for."""
        run = job.subject.run
        if run is None or job.subject.init is None or not (self.every or self.watch):
            return []
        found = on_rank_zero(lambda: self.store.of_run(run, run_identity(Path(run))))
        return [
            replace(r, label=job.subject.label)
            for r in found
            if r.settings == job.settings.get(r.evaluation)
        ]


def say(text: str) -> None:
    """To the user, once for all ranks."""
    if rank() == 0:
        print(printable(text), flush=True)


# ---------------------------------------------------------------- words


def _parsed(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options, and the settings among the words."""
    parser = Parser("benchmark_suite")
    parser.add_argument("words", nargs="+", metavar="WEIGHTS")
    parser.add_argument("--out", type=_path, default=_path("runs/suite"))
    parser.add_argument("--every-checkpoint", action="store_true")
    parser.add_argument("--watch", action="store_true")
    parser.add_argument("--all", action="store_true")
    options = parser.parse_intermixed_args(words)
    options.weights = [Named.parse(word) for word in options.words if is_weights(word)]
    settings = [word for word in options.words if not is_weights(word)]
    if not options.weights:
        raise ConfigError("benchmark_suite: no weights; name runs, checkpoints or files")
    if any(word.startswith("init=") for word in settings):
        raise ConfigError("benchmark_suite: weights are named by themselves, without init=")
    check_labels(options.weights)
    return options, settings


def _device(settings: Sequence[str]) -> str:
    given = [word.partition("=")[2] for word in settings if word.startswith("device=")]
    return given[-1] if given else "auto"


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()
