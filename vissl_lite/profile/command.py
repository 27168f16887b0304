"""`vissl-lite bench step config=RECIPE [key=value ...]`: what a training step costs, and where.

Prints a table; docs/profile.md explains it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import hydra

from vissl_lite.config import Config, check
from vissl_lite.errors import ConfigError
from vissl_lite.overrides import from_file, hydra_arguments, only_chosen
from vissl_lite.parallel.collectives import rank
from vissl_lite.parallel.process import join_group
from vissl_lite.plugins import config_dir, register_with_hydra
from vissl_lite.profile.report import print_report
from vissl_lite.profile.settings import split_words
from vissl_lite.profile.step import bench_step
from vissl_lite.schema import plain


def main(words: Sequence[str]) -> int:
    """The command; returns its exit code.

    Raises:
        ConfigError: a wrong setting, or whatever would stop a run at its start.
    """
    settings, rest = split_words(words)
    join_group()
    result = bench_step(compose(rest), settings)
    if rank() == 0:
        print_report(result)
        if settings.json:
            settings.json.write_text(json.dumps(result, indent=1))
    return 0


def compose(words: Sequence[str]) -> Config:
    """The checked config of a command line, without a run folder.

    Raises:
        ConfigError: no recipe, or what is wrong with the config.
    """
    names = [word.partition("=")[2] for word in words if word.startswith("config=")]
    if not names:
        raise ConfigError("bench step: no recipe given; add config=RECIPE")
    named = [] if from_file(words) else [f"recipe={names[-1]}"]
    register_with_hydra()
    translated = hydra_arguments([*words, *named])
    flags = dict(w[2:].split("=", 1) for w in translated if w.startswith("--config-"))
    overrides = [w for w in translated if not w.startswith("--config-")]
    folder = str(Path(flags.get("config-path", config_dir())).resolve())
    with hydra.initialize_config_dir(folder, version_base="1.3"):
        tree = plain(hydra.compose(flags.get("config-name", "defaults"), overrides))
    tree.pop("hydra", None)  # in the config of a run
    return check(only_chosen(tree, words))
