"""The command line: `vissl-lite config=RECIPE [key=value ...]`, `list`, and `COMMANDS`.

`python tools/run.py ...` is the same. Everything of Hydra works: `-m`, `--help`, `--cfg job`, TAB
completion. What the user got wrong is printed as one block, with exit code 2. A run that wants
several processes on this machine starts them itself (docs/launch.md).
"""

import importlib
import json
import logging
import os
import re
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vissl_lite import listing
from vissl_lite.config import Config, check
from vissl_lite.engine.journal import check_is_run, has_begun, save_config
from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.failures import report
from vissl_lite.overrides import as_chosen, from_file, hydra_arguments, is_sweep
from vissl_lite.parallel import launch
from vissl_lite.parallel.agreement import check_agreement, check_folder
from vissl_lite.parallel.failure import told_to_others
from vissl_lite.parallel.launch import Launch
from vissl_lite.parallel.process import (
    adopt_launcher,
    attempt_store,
    join_group,
    launched_rank,
    launched_world_size,
    leave_group,
    may_restart,
)
from vissl_lite.parallel.signals import shield_workers
from vissl_lite.parallel.watchdog import Watchdog
from vissl_lite.plugins import config_dir, load_entries, recipes, register_with_hydra
from vissl_lite.resumable import check_same
from vissl_lite.schema import conform, plain
from vissl_lite.shown import print_config, shows_config

COMMANDS = {  # the first words -> what runs with the rest of them, imported only then
    ("plan",): "vissl_lite.plan.command:main",
    ("bench", "step"): "vissl_lite.profile.command:main",
    ("bench", "data"): "vissl_lite.profile.data:main",
    ("shards",): "vissl_lite.shards.command:main",
    ("hashtags",): "vissl_lite.hashtags.command:main",
    ("export",): "vissl_lite.export.command:main",
    ("extract",): "vissl_lite.extract.command:main",
    ("nearest",): "vissl_lite.extract.command:nearest_main",
    ("duplicates",): "vissl_lite.duplicates.command:main",
    ("benchmark_suite",): "vissl_lite.suite.command:main",
    ("report",): "vissl_lite.report.command:main",
    ("show",): "vissl_lite.report.show:main",
}


def main() -> None:
    """Entry point of `vissl-lite` and `tools/run.py`."""
    inherited = launch.FROM_PARENT in os.environ
    user_wants_traceback = "HYDRA_FULL_ERROR" in os.environ and not inherited
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to us
    try:
        code = _command(sys.argv[1:])
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        code = _tell(error, user_wants_traceback)
        if launched_world_size() > 1:
            _end_at_once(code)
    finally:
        leave_group()
    sys.exit(code)


def _tell(error: BaseException, user_wants_traceback: bool) -> int:
    """Says what the user has to know; returns the exit code."""
    if isinstance(error, BrokenPipeError) and _nobody_reads():
        return 128 + signal.SIGPIPE
    if not isinstance(error, Exception):
        return 128 + signal.SIGINT
    if user_wants_traceback:
        traceback.print_exception(error)
        return 1
    return report(error)


def _end_at_once(code: int) -> NoReturn:
    """Without leaving the group, in which NCCL would wait for what the others no longer do."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _nobody_reads() -> bool:
    """Whether the reader of our output, such as `head`, has gone; then nothing more is written."""
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _command(args: list[str]) -> int:
    load_entries()
    if args[:1] == ["list"]:
        listing.print_listing(args[1:])
        return 0
    for words, place in COMMANDS.items():
        if tuple(args[: len(words)]) == words:
            module, _, function = place.partition(":")
            return getattr(importlib.import_module(module), function)(args[len(words) :]) or 0
    if "--help" in args or "-h" in args:
        listing.print_help()
        return 0
    if args[:1] == ["rank"]:
        return _rank(Path(args[1]))
    if args and re.fullmatch(r"\w+", args[0]):
        raise ConfigError(_no_command(args[0]))
    return _run_hydra(args)


def _no_command(word: str) -> str:
    """What a single word was meant to be."""
    if word in recipes():
        return f"{word!r} is no command; a recipe is run by config={word}"
    known = ["list", *map(" ".join, COMMANDS)]
    close = did_you_mean(word, known) or ";"
    return f"{word!r} is no command{close} there are: {', '.join(known)}, and config=RECIPE"


# ---------------------------------------------------------------- the process that was called


def _run_hydra(args: list[str]) -> int:
    register_with_hydra()
    adopt_launcher()
    _let_children_import_us()
    sys.argv[1:] = hydra_arguments(args)
    if shows_config(sys.argv[1:]):
        print_config(args, sys.argv[1:])
        return 0
    exit_code, failed = 0, None

    def task(config: DictConfig) -> float | None:
        nonlocal exit_code, failed
        load_entries()  # a launcher's child process starts with empty registries
        adopt_launcher()
        try:
            result, exit_code = run(config, args)
        except Exception as error:
            if is_sweep(args):
                raise  # Hydra says which job it was
            failed = error
            return None
        if exit_code and is_sweep(args):
            sys.exit(exit_code)  # a signal stops the sweep, not only this job
        return result

    # without a path Hydra would take our packages (heads, hooks) for config groups
    hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="defaults")(task)()
    if failed is not None:
        raise failed
    return exit_code


def _let_children_import_us() -> None:
    """Launchers start Python anew, which does not know the folder of a bare checkout."""
    package = str(Path(__file__).resolve().parents[1])
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if package not in known:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [package, *known]))


def run(config: DictConfig, args: list[str]) -> tuple[float | None, int]:
    """Trains and evaluates one composed config, in this process or in several that it starts.

    Args:
        args: the command line.

    Returns:
        The value of `objective`, which sweeps optimise, and the exit code.
    """
    job = HydraConfig.get()
    overrides = list(job.overrides.task)
    words = args if from_file(args) else overrides
    tree = as_chosen(plain(config), words, overrides, str(job.job.config_name))
    how = _launch(tree.pop("launch", {}))
    checked = check(tree)
    if checked.recipe is None:
        raise ConfigError(
            "config: no recipe given; try config=quickstart, or see the list: vissl-lite --help"
        )
    run_dir = Path(job.runtime.output_dir)
    named = any(word.startswith("run_dir=") for word in args)
    if not checked.resume and (named or may_restart()):
        tree["resume"] = _is_same_run(tree, run_dir)
    processes = launch.processes_to_start(how, checked.device)
    if processes > 1:
        return _run_ranks(tree, run_dir, how, processes)
    return train(tree, run_dir, how)


def _launch(given: Any) -> Launch:
    how, problems = conform(given, Launch, "launch")
    if problems:
        raise ConfigError(*problems)
    return how


def _is_same_run(tree: Mapping[str, Any], run_dir: Path) -> bool:
    """Whether the folder holds this run already: the same command has been started again.

    Raises:
        ConfigError: it holds a run with another config.
    """
    if not (run_dir / "config.yaml").is_file() or not has_begun(run_dir):
        return False
    saved = yaml.safe_load((run_dir / "config.yaml").read_text())
    own, there = (
        {key: value for key, value in t.items() if key not in ("resume", "defaults")}
        for t in (tree, saved)
    )
    other = f"run_dir: {run_dir} holds a run with another config"
    check_same(own, there, other, f"take another folder, or go on with resume={run_dir}")
    return True


def _run_ranks(
    tree: dict[str, Any], run_dir: Path, how: Launch, processes: int
) -> tuple[float | None, int]:
    """The same in processes of this machine; the composed config goes to them by a file."""
    with tempfile.TemporaryDirectory(prefix="vissl_lite-") as folder:
        job, result = Path(folder, "job.yaml"), Path(folder, "result.json")
        body = {"config": tree, "run_dir": str(run_dir), "timeout_s": how.timeout_s}
        job.write_text(yaml.safe_dump({**body, "result": str(result)}))
        logs = Path(folder) if tree["dry_run"] else run_dir / "ranks"
        command = [sys.executable, "-m", "vissl_lite", "rank", str(job)]
        code = launch.run_processes(command, processes, logs)
        objective = json.loads(result.read_text()) if result.is_file() else None
    return objective, code


def _rank(file: Path) -> int:
    """One rank of those that `_run_ranks` starts."""
    launch.die_with_parent()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    job = yaml.safe_load(file.read_text())
    how = Launch(timeout_s=job["timeout_s"])
    objective, code = train(job["config"], Path(job["run_dir"]), how)
    if launched_rank() == 0:
        Path(job["result"]).write_text(json.dumps(objective))
    return code


# ---------------------------------------------------------------- every process of a run


@told_to_others()  # a launcher such as submitit's catches what is raised here
def train(tree: dict[str, Any], run_dir: Path, how: Launch) -> tuple[float | None, int]:
    """Trains and evaluates as one rank; all ranks call it together.

    Returns:
        The value of `objective` and the exit code.
    """
    config = check(tree)
    join_group(how.timeout_s, config.device)
    check_agreement(tree)
    if config.dry_run:
        from vissl_lite.engine.dry_run import dry_run

        dry_run(config)
        return None, 0
    check_folder(run_dir)
    if launched_rank() == 0:
        check_is_run(run_dir) if config.resume else save_config(tree, run_dir)
    if launched_world_size() == 1:
        return _train(config, run_dir, None)
    hint = f"go on from the last checkpoint with: vissl-lite resume={run_dir}"
    world = launched_rank(), launched_world_size()
    with Watchdog(how.timeout_s, attempt_store("watchdog"), *world, hint) as watchdog:
        return _train(config, run_dir, watchdog)


def _train(config: Config, run_dir: Path, watchdog: Watchdog | None) -> tuple[float | None, int]:
    if "SLURM_JOB_ID" in os.environ:
        shield_workers()
    if config.train.epochs == 0:
        from vissl_lite.engine.evaluate import evaluate_weights

        return evaluate_weights(config, run_dir).get(config.objective), 0
    from vissl_lite.engine.trainer import Trainer

    trainer = Trainer(config, run_dir)
    if watchdog is not None:
        watchdog.step = lambda: trainer.step
    trainer.fit()
    return trainer.results.get(config.objective), trainer.exit_code
