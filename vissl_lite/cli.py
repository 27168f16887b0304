"""The command line: `vissl-lite config=RECIPE [key=value ...]` and `vissl-lite list`.

`python tools/run.py ...` is the same. Everything of Hydra works: `-m`, `--help`, `--cfg job`, TAB
completion. What the user got wrong is printed as one block, with exit code 2.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vissl_lite import REGISTRIES, listing
from vissl_lite.config import check
from vissl_lite.engine.journal import save_config
from vissl_lite.errors import ConfigError, NonFiniteLoss, did_you_mean
from vissl_lite.parallel.process import join_group, launched_rank, launched_world_size, leave_group
from vissl_lite.plugins import (
    config_dir,
    config_folders,
    load_entries,
    recipes,
    register_with_hydra,
)
from vissl_lite.schema import plain

USER_ERRORS = (ConfigError, HydraException, OmegaConfBaseException, YAMLError)


def main() -> None:
    """Entry point of `vissl-lite` and `tools/run.py`."""
    user_wants_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to us
    try:
        sys.exit(_command(sys.argv[1:]))
    except USER_ERRORS as error:
        if user_wants_traceback:
            raise
        print(block(error), file=sys.stderr)
        sys.exit(2)
    except NonFiniteLoss as error:
        print(f"training stopped: {error}", file=sys.stderr)
        sys.exit(1)
    finally:
        leave_group()


def block(error: Exception) -> str:
    """What the user reads: one line per problem."""
    ours = next((e for e in _chain(error) if isinstance(e, ConfigError)), None)
    problems = ours.problems if ours else [_in_our_words(error)]
    count = "" if len(problems) == 1 else f" ({len(problems)} problems)"
    lines = "\n".join(problem.replace("\n", "\n  ") for problem in problems)
    return f"config error{count}\n  " + lines.replace("\n", "\n  ")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what caused it: OmegaConf wraps what a resolver raises."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _in_our_words(error: Exception) -> str:
    """One sentence from an exception of Hydra, OmegaConf or the YAML parser."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        options = error.options or []
        close = did_you_mean(name, options) or ";"
        return f"{group}: unknown {name!r}{close} there are: {', '.join(options)}"
    return str(error).strip().split("\nSee https")[0]


def _command(args: list[str]) -> int:
    load_entries()
    if args[:1] == ["list"]:
        listing.print_listing(args[1:])
        return 0
    if "--help" in args or "-h" in args:
        listing.print_help()
        return 0
    return _run_hydra(args)


def _run_hydra(args: list[str]) -> int:
    register_with_hydra()
    join_group()
    sys.argv[1:] = hydra_arguments(args)
    exit_code, failed = 0, None

    def task(config: DictConfig) -> float | None:
        nonlocal exit_code, failed
        load_entries()  # a launcher's child process starts with empty registries
        try:
            result, exit_code = run(config)
        except USER_ERRORS as error:
            if is_sweep(args):
                raise  # Hydra says which job it was
            failed = error
            return None
        return result

    # without a path Hydra would take our packages (heads, hooks) for config groups
    hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="defaults")(task)()
    if failed is not None:
        raise failed
    return exit_code


def is_sweep(args: list[str]) -> bool:
    return "-m" in args or "--multirun" in args or any(a.startswith("sweep=") for a in args)


def run(config: DictConfig) -> tuple[float | None, int]:
    """Trains and evaluates one composed config.

    Returns:
        The value of `objective`, which sweeps optimise, and the exit code.
    """
    checked = check(config)
    if checked.recipe is None:
        raise ConfigError(
            "config: no recipe given; try config=quickstart, or see the list: vissl-lite --help"
        )
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    if checked.dry_run:
        from vissl_lite.engine.dry_run import dry_run

        dry_run(checked)
        return None, 0
    if launched_rank() == 0 and not checked.resume:
        save_config(plain(config), run_dir)
    if checked.train.epochs == 0:
        from vissl_lite.engine.evaluate import evaluate_weights

        return evaluate_weights(checked, run_dir).get(checked.objective), 0
    from vissl_lite.engine.trainer import Trainer

    trainer = Trainer(checked, run_dir)
    trainer.fit()
    return trainer.results.get(checked.objective), trainer.exit_code


# ---------------------------------------------------------------- from our words to Hydra's


def hydra_arguments(args: list[str]) -> list[str]:
    """Our command line in Hydra's terms: recipes, `resume=`, and plain `key=value` that never fails
    in Hydra, so that `check` can report every mistake at once."""
    sweep = is_sweep(args)
    if sweep and launched_world_size() > 1:
        raise ConfigError(
            "-m under torchrun would run the whole sweep once per process; sweep without it"
        )
    completing = "-sc" in args or "--shell-completion" in args
    words = args if completing else [new for word in args for new in _translate(word, sweep)]
    OmegaConf.register_new_resolver("from_run", _from_run(args), replace=True)
    _share_start_time()
    if launched_rank() > 0:
        words += ["hydra.output_subdir=null", f"hydra.job.name=rank{launched_rank()}"]
        logging.getLogger().setLevel(logging.WARNING)
    return words


def _translate(word: str, sweep: bool) -> list[str]:
    key, equals, value = word.partition("=")
    if not equals or word.startswith("-"):
        return [word]
    if value in ("null", "") and _is_group(key):
        raise ConfigError(f"{key}: null is not a choice; leave it out with ~{key}")
    if key == "resume":
        return _resume(Path(value))
    if key == "config" and value.endswith((".yaml", ".yml")):
        return _config_file(Path(value))
    if key == "config":
        _check_recipe(value, sweep)
        return [word]
    if key[0] in "+~" or key.startswith("hydra") or (_is_group(key) and not value.startswith("{")):
        return [word]
    return [f"++{word}"]


def _resume(run_dir: Path) -> list[str]:
    if not (run_dir / "config.yaml").is_file():
        siblings = [str(p.parent) for p in run_dir.parent.glob("*/config.yaml")]
        raise ConfigError(
            f"resume: {run_dir} is not a run, it has no config.yaml"
            + did_you_mean(str(run_dir), siblings)
            + ("" if siblings else "; give the folder that the run printed, under runs/")
        )
    return [*_config_file(run_dir / "config.yaml"), f"hydra.run.dir={run_dir}", "++resume=true"]


def _config_file(file: Path) -> list[str]:
    if not file.is_file():
        raise ConfigError(f"config: no file {file}; a recipe's name has no ending .yaml")
    return [f"--config-path={file.resolve().parent}", f"--config-name={file.stem}"]


def _check_recipe(value: str, sweep: bool) -> None:
    names = value.split(",") if sweep else [value]
    plain = [name for name in names if name not in ("", "null") and "(" not in name]
    if unknown := [name for name in plain if name not in recipes()]:
        raise ConfigError(
            *(
                f"config: unknown recipe {name!r}{did_you_mean(name, recipes())}"
                " (vissl-lite --help lists all)"
                for name in unknown
            )
        )


def _is_group(key: str) -> bool:
    key = key.partition("@")[0]
    groups = {registry.group for registry in REGISTRIES.values()}
    return key in groups or "/" in key or any((f / key).is_dir() for _, f in config_folders())


def _from_run(args: list[str]) -> Callable[[str], Any]:
    """Resolver `${from_run:trunk}`: a value of the run that `init=` names."""
    given = [word.partition("=")[2] for word in args if word.startswith("init=")]

    def from_run(key: str) -> Any:
        from vissl_lite.engine.weights import run_config

        if not given:
            raise ConfigError(f"{key}: this recipe takes it from a run; add init=DIR_OF_THE_RUN")
        return OmegaConf.select(OmegaConf.load(run_config(Path(given[-1]))), key)

    return from_run


def _share_start_time() -> None:
    """One timestamp for all processes, so that they agree on the run folder."""
    from vissl_lite.parallel.collectives import broadcast_object

    stamp = broadcast_object(time.strftime("%Y-%m-%d_%H-%M-%S"))
    OmegaConf.register_new_resolver("start_time", lambda: stamp, replace=True)
