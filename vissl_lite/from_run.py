"""What a recipe takes from the weights that `init=` names: `${from_run:trunk}`."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from vissl_lite.config import IMAGENET_MEAN, IMAGENET_STD, Labelled
from vissl_lite.errors import ConfigError, place_renamed
from vissl_lite.grammar import key_of, unquoted
from vissl_lite.parallel.process import launched_rank

if TYPE_CHECKING:
    from vissl_lite.formats.recognise import Weights


def resolver(args: Sequence[str]) -> Callable[[str], Any]:
    """From a key to its value in the config of the run that `init=` names.

    Weights from elsewhere belong to no run: see `around`.

    Args:
        args: the words of the command line.
    """
    given = [unquoted(word) for word in args if word.startswith("init=")]
    trees: list[DictConfig] = []  # read at the first key; launchers pickle this function

    def from_run(key: str) -> Any:
        if not given:
            raise ConfigError(f"{key}: this recipe takes it from a run; add init=DIR_OF_THE_RUN")
        if not trees:
            trees.append(_saved(given[-1]) or OmegaConf.create(around(given[-1], args)))
        return OmegaConf.select(trees[0], key)

    return from_run


def with_dataset(
    tree: dict[str, Any], words: Sequence[str], compose: Callable[[list[str]], DictConfig]
) -> dict[str, Any]:
    """The tree with the labelled images of `dataset=NAME` where the recipe takes them from a run.

    A dataset without labelled images leaves those of the run. Mean and std stay what the weights
    were trained with.

    Args:
        tree: composed of all words.
        words: Hydra's overrides.
        compose: makes the config of words.
    """
    chosen = [word for word in words if key_of(word) == "dataset"][-1:]
    labelled = OmegaConf.to_container(compose([*words]).labelled) if chosen else {}
    taken = [k for k, v in cast(dict, labelled).items() if str(v).startswith("${from_run:")]
    if not taken:
        return tree
    own: Any = OmegaConf.to_container(compose(chosen).labelled, resolve=True)
    if own["train"] is None and own["test"] is None:
        return tree
    return {**tree, "labelled": {**tree["labelled"], **{key: own[key] for key in taken}}}


def _saved(path_or_name: str) -> DictConfig | None:
    """The config of the run that a path belongs to; None where there is none of ours."""
    from vissl_lite.engine.weights import run_config

    path = Path(path_or_name).expanduser()
    try:
        saved = OmegaConf.load(run_config(path)) if path.exists() else {}
    except ConfigError:
        return None
    return cast(DictConfig, saved) if {"trunk", "data", "labelled"} <= {*saved} else None


@place_renamed("weights", "init")
def around(path_or_name: str, args: Sequence[str] = ()) -> dict[str, Any]:
    """What evaluations take from a run, for weights that belong to none.

    Trunk, mean, std and size are what the weights tell; no heads; no labelled images. What they do
    not tell, and `args` do not set, is ImageNet's, and a note says so.

    Raises:
        ConfigError: there are no such weights, or they do not tell their trunk.
    """
    from vissl_lite.engine.weights import NOT_PRETRAINED, read
    from vissl_lite.formats.identify import identify

    weights, usual = read(path_or_name), Labelled()
    named = any(word.startswith("trunk=") for word in args)
    weights = weights if named else identify(weights)
    trunk, pixels = weights.config or {}, weights.pixels
    if named and pixels.size is None:
        pixels = replace(pixels, size=_size(weights))
    found = {
        "data.mean": (pixels.mean, IMAGENET_MEAN),
        "data.std": (pixels.std, IMAGENET_STD),
        "labelled.size": (trunk.get("image_size", pixels.size), usual.size),
    }
    given = {key_of(word) for word in args}
    given |= {"labelled.size"} if "dataset" in given else set()
    unset = [key for key in found if key not in given]
    unknown = [key for key in unset if found[key][0] is None]
    if unknown and launched_rank() == 0:
        keys = ", ".join(unknown)
        print(f"note: {path_or_name} does not tell {keys}: taken as on ImageNet", file=sys.stderr)
    mean, std, size = (usual if told is None else told for told, usual in found.values())
    images = {"train": None, "test": None, "size": size, "transforms": usual.transforms}
    return {
        "trunk": {**trunk, **{k: v for k, v in NOT_PRETRAINED.items() if k in trunk}},
        "heads": [],
        "layer": None,
        "pool": "avg",
        "labelled": images,
        "data": {"mean": list(mean), "std": list(std)},
    }


def _size(weights: "Weights") -> int | None:
    """Side of the images of a trunk of ours, if it is one and takes no other."""
    from vissl_lite.formats.recognise import infer

    try:
        return infer(weights.trunk).get("image_size")
    except ConfigError:
        return None
