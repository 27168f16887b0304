"""`--cfg job`: the config as the run has it. Hydra's own would show it before `as_chosen`."""

import argparse
from collections.abc import Sequence
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import Container, OmegaConf

from vissl_lite.errors import ConfigError
from vissl_lite.overrides import as_chosen
from vissl_lite.plugins import config_dir


def shows_config(words: Sequence[str]) -> bool:
    """Whether the command line asks for the config of one job of ours, and for nothing else."""
    options = get_args_parser().parse_known_args(words)[0]
    elsewhere = options.config_path or options.config_dir
    return options.cfg == "job" and not (options.multirun or elsewhere)


def print_config(args: Sequence[str], words: Sequence[str]) -> None:
    """Prints it as YAML, interpolations as they stand unless --resolve is given.

    Args:
        args: the command line; of its flags --package and --resolve are obeyed, as by Hydra.
        words: the same in Hydra's terms.

    Raises:
        ConfigError: the config has no such package.
    """
    options = get_args_parser().parse_args(words)
    name = options.config_name or "defaults"
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        composed = hydra.compose(name, options.overrides, return_hydra_config=True)
        HydraConfig.instance().set_config(composed)  # for ${hydra:...}
        tree: Any = OmegaConf.to_container(composed)
        del tree["hydra"]
        _print(OmegaConf.create(as_chosen(tree, args, options.overrides, name)), options)


def _print(config: Container, options: argparse.Namespace) -> None:
    if options.resolve:
        OmegaConf.resolve(config)
    whole = options.package in (None, "_global_")
    part = config if whole else OmegaConf.select(config, options.package)
    if part is None:
        raise ConfigError(f"--package: the config has no {options.package!r}")
    print(OmegaConf.to_yaml(part) if isinstance(part, Container) else f"{part}\n", end="")
