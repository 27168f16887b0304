"""What the command line chooses by name: recipes, entries of registries, files of a group."""

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException

from vissl_lite import REGISTRIES
from vissl_lite.errors import did_you_mean
from vissl_lite.grammar import key_of
from vissl_lite.plugins import config_folders, recipes


def is_group(key: str) -> bool:
    """Whether values of this key are names, `loss=swav`."""
    key = key.partition("@")[0]
    groups = {registry.group for registry in REGISTRIES.values()}
    return key in groups or "/" in key or any((f / key).is_dir() for _, f in config_folders())


def keyed_groups() -> dict[str, Any]:
    """The registries of which a run may have several entries: hooks, loggers, evaluations."""
    return {registry.group: registry for registry in REGISTRIES.values() if registry.keyed}


def chosen(word: str) -> list[str]:
    """The names in `loss=swav`, `hooks=[evaluate,report]` or, of a sweep, `loss=swav,simclr`.

    Empty where the value is no such thing, or Hydra has to say what is wrong with it.
    """
    try:
        value: Any = OverridesParser.create().parse_override(word).value()
    except HydraException:
        return []
    if isinstance(value, ChoiceSweep):
        value = value.list
    names = value if isinstance(value, list) else [value]
    return [str(n) for n in names if isinstance(n, (str, int, float)) and "${" not in str(n)]


def unknown_choices(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A sentence for every name that does not exist, and the words that do not concern them."""
    problems, wrong = [], []
    for word in filter(_chooses, words):
        group, options = key_of(word).partition("@")[0], _options(key_of(word).partition("@")[0])
        unknown = [name for name in chosen(word) if options and name not in options]
        problems += [_sentence(group, name, options) for name in unknown]
        wrong += [group] if unknown else []
    return problems, [word for word in words if not any(concerns(word, g) for g in wrong)]


def _chooses(word: str) -> bool:
    """Whether the word is GROUP=NAME or GROUP=[NAME,...], and not GROUP={...} or a file."""
    key, value = key_of(word), word.partition("=")[2]
    if not key or not value or value.startswith("{") or value.endswith((".yaml", ".yml")):
        return False
    return not key.startswith(("hydra", "-", "~")) and is_group(key)


def concerns(word: str, group: str) -> bool:
    """Whether the word sets this group or key, or something in it."""
    key = key_of(word)
    return key.partition("@")[0] == group or key.startswith(f"{group.replace('/', '.')}.")


def _options(group: str) -> list[str]:
    if group == "config":
        return recipes()
    entries = [name for r in REGISTRIES.values() if r.group == group for name in r.names()]
    files = [f.stem for _, folder in config_folders() for f in (folder / group).glob("*.yaml")]
    return sorted({*entries, *files})


def _sentence(group: str, name: str, options: list[str]) -> str:
    if group == "config":
        return (
            f"config: unknown recipe {name!r}{did_you_mean(name, options)}"
            " (vissl-lite --help lists all)"
        )
    close = did_you_mean(name, options) or ";"
    return f"{group}: unknown {name!r}{close} there are: {', '.join(options)}"
