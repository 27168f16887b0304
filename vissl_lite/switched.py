"""Parts that the command line takes instead of a recipe's: `loss=swav`, `trunk={name: vit}`.

Hydra merges, so that what a recipe says of its own part (`loss: {temperature: 0.5}`) would be said
of the other one. Here the other part begins with its own defaults, and the user is told.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vissl_lite import REGISTRIES
from vissl_lite.grammar import key_of, value_of

Compose = Callable[[list[str]], DictConfig]


def switched(tree: dict[str, Any], words: Sequence[str], compose: Compose) -> tuple[dict, list]:
    """The tree, in which a part of another name has nothing of the recipe's, and notes that say so.

        trunk of `config=R trunk=vit trunk.size=tiny` = trunk of `trunk=vit`, and size: tiny
        trunk of `config=R trunk={name: vit}`         = {name: vit}
        trunk of `config=R trunk=NAME`, which R takes too     = R's with its settings

    Args:
        tree: composed of all words.
        words: Hydra's overrides.
        compose: makes the config of words, Hydra's own with it.
    """
    given = {path: word for word in words if (path := _switches(word))}
    if not given:
        return tree, []
    tree, notes = copy.deepcopy(tree), []
    before = compose([word for word in words if word not in given.values()])
    for path, word in given.items():
        old, new = _names(before, path, word)
        if old in (None, new):
            continue
        own, merged = _alone(path, word, compose), _at(tree, path)
        for key in (k for k in map(key_of, words) if k.startswith(f"{path}.")):  # but for ~key
            _put(own, key.removeprefix(f"{path}."), _at(tree, key))
        _put(tree, path, own)
        left = [f"{path}.{k}={v}" for k, v in merged.items() if k not in own or own[k] != v]
        if left:
            notes.append(
                f"{path}: {new} instead of {old}; left out of the recipe: {', '.join(left)}"
            )
    return tree, notes


def _switches(word: str) -> str:
    """The place of the part that a word names, GROUP=NAME or KEY={name: NAME, ...}; "" if none."""
    group = key_of(word)
    if group in {r.group for r in REGISTRIES.values() if r.group and not r.keyed}:
        return group.replace("/", ".")
    return key_of(word) if isinstance(value_of(word), dict) and "name" in value_of(word) else ""


def _alone(path: str, word: str, compose: Compose) -> dict[str, Any]:
    """The part as it is without a recipe."""
    value = value_of(word)
    if isinstance(value, dict):
        return copy.deepcopy(value)
    part = OmegaConf.select(compose([word]), path)
    return OmegaConf.to_container(part, resolve=True)  # pyright: ignore[reportReturnType]


def _names(before: DictConfig, path: str, word: str) -> tuple[str | None, str]:
    """Of the part that the recipe has, None without any, and of the other one.

    Where both are choices of a group, of the choices: files may hold the same entry.
    """
    value = value_of(word)
    if not isinstance(value, dict):
        return before.hydra.runtime.choices.get(key_of(word)), str(value)
    part = OmegaConf.select(before, path)
    old = part.get("name") if isinstance(part, DictConfig) else part  # may be the name alone
    return old, str(value["name"])


def _at(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree[key]
    return tree


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    *above, last = path.split(".")
    for key in above:
        tree = tree.setdefault(key, {})
    tree[last] = value
