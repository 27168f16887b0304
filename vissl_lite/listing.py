"""`vissl-lite list [registry [name]]`: what can be named in a recipe."""

import inspect

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vissl_lite import REGISTRIES
from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.plugins import recipes
from vissl_lite.registry import Registry


def print_listing(words: list[str]) -> None:
    """All registries, one registry, or one entry with its parameters and docstring.

    Raises:
        ConfigError: no registry or entry of that name.
    """
    console = Console(soft_wrap=False, highlight=False)
    if not words:
        return _overview(console)
    if words[0] in ("recipe", "recipes", "config"):
        for recipe in recipes():
            console.print(recipe)
        return None
    registry = _registry(words[0])
    if len(words) == 1:
        return _entries(console, registry)
    return _entry(console, registry, words[1])


def _registry(word: str) -> Registry:
    kind = word.lower().removesuffix("s")
    if kind not in REGISTRIES:
        close = did_you_mean(kind, REGISTRIES)
        raise ConfigError(f"list: no registry {word!r}{close}; there are: {', '.join(REGISTRIES)}")
    return REGISTRIES[kind]


def _overview(console: Console) -> None:
    table = Table("registry", "on the command line", "entries", box=None, padding=(0, 2, 0, 0))
    for kind, registry in REGISTRIES.items():
        choice = f"{registry.group}=" if registry.group else "in YAML"
        table.add_row(kind, choice, ", ".join(registry.names()))
    console.print(table)
    console.print(f"\n{len(recipes())} recipes: vissl-lite list recipes")


def _entries(console: Console, registry: Registry) -> None:
    table = Table(registry.kind, "what it is", "from", box=None, padding=(0, 2, 0, 0))
    for name in registry:
        entry = registry.describe(name)
        table.add_row(name, Text(entry.summary), entry.origin.rpartition(".")[0])
    console.print(table)


def _entry(console: Console, registry: Registry, name: str) -> None:
    entry = registry.describe(name)
    console.print(Text(f"{registry.kind} {name}  ({entry.origin})", style="bold"))
    console.print(Text(inspect.getdoc(registry[name]) or ""))
    table = Table("parameter", "default", "type", box=None, padding=(0, 2, 0, 0))
    for p in entry.parameters:
        hint = getattr(p.hint, "__name__", None) if isinstance(p.hint, type) else None
        default = "must be given" if p.required else str(p.default)
        table.add_row(p.name, Text(default), Text(hint or str(p.hint).replace("typing.", "")))
    console.print()
    console.print(table)
