"""From the words of our command line to Hydra's, and from its composition to the config."""

import logging
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vissl_lite import from_run
from vissl_lite.choices import chosen, concerns, is_group, keyed_groups, unknown_choices
from vissl_lite.config import Config, check
from vissl_lite.engine.journal import has_begun
from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.failures import unreadable
from vissl_lite.grammar import key_of, quoted, sweeps, unquoted
from vissl_lite.parallel.process import (
    is_launched,
    launched_rank,
    launched_world_size,
    start_time,
)
from vissl_lite.plugins import (
    config_dir,
    load_entries,
    register_with_hydra,
)
from vissl_lite.schema import plain
from vissl_lite.switched import switched

KEEP_WORDS = "hydra.output_subdir=null"  # those that began a run stay in its .hydra, for its report


def is_sweep(args: Sequence[str]) -> bool:
    """Whether Hydra runs several jobs, or one through a launcher such as submitit's."""
    return (
        "-m" in args
        or "--multirun" in args
        or any(word.startswith(("sweep=", "hydra/launcher=")) for word in args)
    )


def hydra_arguments(args: list[str]) -> list[str]:
    """Our command line in Hydra's terms: recipes, `resume=`, and plain `key=value` that never fails
    in Hydra, so that `check` can report every mistake at once."""
    sweep = is_sweep(args)
    if sweep and launched_world_size() > 1:
        raise ConfigError(
            "-m under torchrun or srun would run the whole sweep once per process; sweep without it"
        )
    args = [_dotted(word) for word in args]
    completing = "-sc" in args or "--shell-completion" in args
    words = args if completing else _translated(args)
    OmegaConf.register_new_resolver("from_run", from_run.resolver(args), replace=True)
    _register_start_time()
    if launched_rank() > 0:
        words += [KEEP_WORDS, f"hydra.job.name=rank{launched_rank()}"]
        logging.getLogger().setLevel(logging.WARNING)
    return words


def _dotted(word: str) -> str:
    """`data.views[0].size=96`, as messages name places, is `data.views.0.size=96` for Hydra."""
    key, equals, value = word.partition("=")
    return re.sub(r"\[(\d+)\]", r".\1", key) + equals + value if equals or key[:1] == "~" else word


def _translated(args: Sequence[str]) -> list[str]:
    """All words in Hydra's terms.

    Raises:
        ConfigError: with every name that does not exist, every word that means nothing, and what
            is wrong besides.
    """
    problems, rest = unknown_choices(args)
    words: list[str] = []
    for word in args:
        try:
            words += (new := _translate(word, args))
            _check_grammar(word, new)
        except ConfigError as error:
            problems += error.problems
            key = key_of(word).partition("@")[0]
            rest = [other for other in rest if not concerns(other, key)]
    if problems:
        raise ConfigError(*problems, *([] if is_sweep(args) else _problems(rest)))
    return words


def _check_grammar(word: str, translated: Sequence[str]) -> None:
    """
    Raises:
        ConfigError: Hydra cannot read what became of the word.
    """
    overrides = [new for new in translated if "=" in new and not new.startswith("-")]
    try:
        OverridesParser.create().parse_overrides(overrides)
    except OverrideParseException:
        raise ConfigError(unreadable(word.lstrip("+"))) from None


def _translate(word: str, args: Sequence[str]) -> list[str]:
    key, equals, value = word.partition("=")
    if not equals or word.startswith("-"):
        return [word]
    if key in keyed_groups() and from_file(args):  # one tree, without groups: see only_chosen
        return []
    _check_word(word, key, value)
    if _names_file(word):
        return _config_file(Path(value))
    match key:
        case "resume":
            return _resume(Path(value), args)
        case "run_dir":
            return _run_dir(value, args)
        case "init" if not is_sweep(args):
            return [f"++init={quoted(value)}"]
        case "hydra/launcher":
            _check_slurm(value, args)
            return [word, "hydra.mode=MULTIRUN"]  # else Hydra would ignore the launcher
    return [word] if _is_for_hydra(key, value) else [f"++{word}"]


def _check_word(word: str, key: str, value: str) -> None:
    if not key:
        raise ConfigError(f"{word!r} sets nothing: a key is missing before =")
    if word == "config=":
        raise ConfigError("config: names no recipe; vissl-lite list shows them")
    if value in ("null", "") and is_group(key):
        raise ConfigError(f"{key}: null is not a choice; leave it out with ~{key}")


def _is_for_hydra(key: str, value: str) -> bool:
    """Whether a word is in Hydra's terms as it is: a choice, a setting of its own, or +, ++, ~."""
    chooses = key == "config" or (is_group(key) and not value.startswith("{"))
    return chooses or key[0] in "+~" or key.startswith("hydra")


def _problems(words: Sequence[str]) -> list[str]:
    """What is wrong with the config that the settings among these words make."""
    if not any(word.startswith("config=") for word in words):
        return []
    try:
        compose([word for word in words if "=" in word and not word.startswith("-")])
    except ConfigError as error:
        return error.problems
    except (HydraException, OmegaConfBaseException, ValueError):  # comes again when all is mended
        pass
    return []


def _register_start_time() -> None:
    """A launcher's jobs get the time of the command that submitted them, pickled with the rest."""
    now = start_time() if not is_launched() else ""
    resolver = start_time if is_launched() else lambda: now
    OmegaConf.register_new_resolver("start_time", resolver, replace=True)


def from_file(args: Sequence[str]) -> bool:
    """Whether the config comes from a file, that of a run above all, and not from a recipe."""
    return any(w.startswith("resume=") or _names_file(w) for w in args)


def _names_file(word: str) -> bool:
    return word.startswith("config=") and word.endswith((".yaml", ".yml"))


def _resume(run_dir: Path, args: Sequence[str]) -> list[str]:
    if not (run_dir / "config.yaml").is_file():
        siblings = [str(p.parent) for p in run_dir.parent.glob("*/config.yaml")]
        raise ConfigError(
            f"resume: {run_dir} is not a run, it has no config.yaml"
            + did_you_mean(str(run_dir), siblings)
            + ("" if siblings else "; give the folder that the run printed, under runs/")
        )
    if (word := _several_jobs(args)) is not None:
        raise ConfigError(
            f"resume: {word} makes several jobs, and only one can go on in {run_dir}; leave it out,"
            f" or start new runs with init={run_dir}"
        )
    where = _lives_in(str(run_dir))
    return [*_config_file(run_dir / "config.yaml"), *where, KEEP_WORDS, "++resume=true"]


def _run_dir(value: str, args: Sequence[str]) -> list[str]:
    if _several_jobs(args) is not None:
        return [f"hydra.sweep.dir={quoted(value)}"]
    begun = has_begun(Path(unquoted(f"run_dir={value}")))
    return [*_lives_in(value), *([KEEP_WORDS] if begun else [])]


def _lives_in(run_dir: str) -> list[str]:
    """The folder of the only job, whether Hydra runs it itself or gives it to a launcher."""
    folder = quoted(run_dir)
    return [f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=."]


def _several_jobs(args: Sequence[str]) -> str | None:
    """The first word that makes Hydra run several jobs, or None."""
    if not is_sweep(args):
        return None
    words = [word for word in args if key_of(word) not in ("resume", "run_dir")]
    choices = ("sweep=", "hydra/sweeper=", "hydra.sweeper.")
    return next((w for w in words if w.lstrip("+").startswith(choices) or sweeps(w)), None)


def _config_file(file: Path) -> list[str]:
    if not file.is_file():
        raise ConfigError(f"config: no file {file}; a recipe's name has no ending .yaml")
    return [f"--config-path={file.resolve().parent}", f"--config-name={file.stem}"]


def _check_slurm(launcher: str, args: Sequence[str]) -> None:
    only_shown = any(word in args for word in ("--cfg", "-c", "--info", "-i"))
    if "slurm" in launcher and shutil.which("srun") is None and not only_shown:
        raise ConfigError(
            f"hydra/launcher: {launcher} submits to SLURM, and there is no srun on this machine;"
            " run this where you would call sbatch"
        )


# ---------------------------------------------------------------- after Hydra has composed


def compose(words: Sequence[str], settings: Sequence[str] = ()) -> Config:
    """The checked config of a command line, as a run would have it, without a run folder.

    Args:
        settings: of the command that it is for, which a message may suggest.

    Raises:
        ConfigError: no recipe, or what is wrong with the config.
    """
    names = [word.partition("=")[2] for word in words if word.startswith("config=")]
    if not names:
        raise ConfigError("config: no recipe given; add config=RECIPE")
    load_entries()
    register_with_hydra()
    named = [] if from_file(words) else [f"recipe={names[-1]}"]
    translated = hydra_arguments([*words, *named])
    flags = dict(w[2:].split("=", 1) for w in translated if w.startswith("--config-"))
    overrides = [w for w in translated if not w.startswith("--config-")]
    folder = str(Path(flags.get("config-path", config_dir())).resolve())
    name = flags.get("config-name", "defaults")
    with hydra.initialize_config_dir(folder, version_base="1.3"):
        tree = plain(hydra.compose(name, overrides))
        tree.pop("hydra", None)  # in the config of a run
        return check(as_chosen(tree, words, overrides, name), settings)


def as_chosen(
    tree: Mapping[str, Any], words: Sequence[str], overrides: Sequence[str], config_name: str
) -> dict[str, Any]:
    """The composed tree with what the command line chooses, and nothing of what it leaves.

    Args:
        words: of the command line, or of this job of a sweep.
        overrides: the same in Hydra's terms.
        config_name: what Hydra has composed.
    """
    compose_again = partial(hydra.compose, config_name, return_hydra_config=True)
    own = from_run.with_dataset(only_chosen(tree, words), overrides, compose_again)
    parts, notes = switched(own, overrides, compose_again)
    for note in notes if launched_rank() == 0 else ():
        print(f"note: {note}", file=sys.stderr)
    return parts


def only_chosen(tree: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """The composed tree with the entries that the command line chooses, and no others.

    For Hydra `hooks=[checkpoint]` chooses what the groups bring, and what a recipe sets by key
    (`hooks: {evaluate: {every_epochs: 10}}`) would bring `evaluate` back. An entry with a key of
    its own on the command line stays. The config of a run has no groups: a choice keeps what it
    has of these entries and adds the rest with their defaults.

    Args:
        words: of the command line, or of this job of a sweep.
    """
    tree = dict(tree)
    keys = [key_of(word).split(".") for word in words]
    for group, registry in keyed_groups().items():
        choices = [word for word in words if word.startswith(f"{group}=")]
        names = chosen(choices[-1]) if choices else []
        if choices and all(name in registry for name in names):  # a preset may bring any entry
            kept = [*names, *(key[1] for key in keys if key[0] == group and len(key) > 1)]
            entries = tree.get(group) or {}
            tree[group] = {n: entries[n] for n in entries if n in kept}
            tree[group] |= {n: {} for n in names if n not in entries}
    return tree
