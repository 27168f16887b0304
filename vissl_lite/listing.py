"""`vissl-lite --help` and `vissl-lite list [registry [name]]`: what a command line can name."""

import inspect

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vissl_lite import REGISTRIES
from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.plugins import config_folders, recipe_files
from vissl_lite.registry import Registry

HINTS = """
show a recipe            vissl-lite config=quickstart --cfg job
what a part can do       vissl-lite list loss swav
try without training     vissl-lite config=quickstart dry_run=true
sweep                    vissl-lite -m config=quickstart optimizer.lr=0.1,0.3
go on after a stop       vissl-lite resume=runs/quickstart/DATE
start from weights       vissl-lite config=evaluate/knn init=runs/NAME/DATE
several processes        vissl-lite config=... takes all GPUs; launch.processes=N
what fits                vissl-lite plan config=... world_size=512 gpu=h100-80gb
where time goes          vissl-lite bench step config=...
what images cost         vissl-lite bench data config=...
pack a data set          vissl-lite shards build FOLDER --out DIR --short-side 400
hashtags to classes      vissl-lite hashtags build captions.parquet --out DIR
tags of images           vissl-lite hashtags predict RUN SOURCE --out tags.tsv
trained on the labels    vissl-lite config=evaluate/finetune init=runs/NAME/DATE
many weights, one table  vissl-lite benchmark_suite RUN OTHER.pth
weights for others       vissl-lite export runs/NAME/DATE --to torchvision
features of images       vissl-lite extract MODEL SOURCE --out FOLDER
images like this one     vissl-lite nearest FEATURES IMAGE
those of a test set      vissl-lite duplicates TRAIN TEST --out DIR
a run as a page          vissl-lite report RUN
a recipe before it runs  vissl-lite show config=RECIPE
on SLURM                 vissl-lite config=... hydra/launcher=slurm_8nodes
TAB completion           eval "$(vissl-lite -sc install=bash)"
Hydra's own options      vissl-lite --hydra-help
"""


def print_help() -> None:
    """Usage, every recipe with its title, every choice, and what else one can type."""
    console = Console(highlight=False)
    console.print("Pre-training of large vision models without labels or with weak ones.\n")
    console.print("usage: vissl-lite config=RECIPE \\[group=CHOICE ...] \\[key=value ...]\n")
    console.print("recipes (config=...)", style="bold")
    _print_recipes(console)
    console.print("\nchoices", style="bold")
    table = _table()
    for group, options in _choices().items():
        table.add_row(f"  {group}=", Text(", ".join(options)))
    console.print(table)
    console.print(Text(HINTS), soft_wrap=True)


def _print_recipes(console: Console) -> None:
    """Names whole at any width; of the titles what has room beside them."""
    files = recipe_files()
    width = max(map(len, files)) + 4
    for recipe, file in files.items():
        line = Text(f"  {recipe}".ljust(width))
        line += Text(_title(file.read_text(encoding="utf-8")), style="dim")
        line.truncate(max(console.width, width), overflow="ellipsis")
        console.print(line, soft_wrap=True)


def _title(recipe: str) -> str:
    """The first words of a recipe's card."""
    lines = (line.lstrip("# ") for line in recipe.splitlines() if not line.startswith("# @"))
    return next(filter(None, lines), "")


def _choices() -> dict[str, list[str]]:
    """Groups of parts and of YAML presets, each with its options."""
    choices = {r.group: r.names() for r in REGISTRIES.values() if r.group}
    for _, folder in config_folders():
        for group in sorted(p for p in folder.glob("*/") if p.name != "config"):
            presets = sorted(f.stem for f in group.glob("*.yaml"))
            if presets:  # hydra/ has its own groups
                choices.setdefault(group.name, []).extend(presets)
    return choices


def print_listing(words: list[str]) -> None:
    """All registries, one registry, or one entry with its parameters and docstring.

    Raises:
        ConfigError: no registry or entry of that name.
    """
    console = Console(highlight=False)
    if not words:
        return _overview(console)
    if words[0] in ("recipe", "recipes", "config"):
        for recipe in recipe_files():
            console.print(recipe, soft_wrap=True)
        return None
    registry = _registry(words[0])
    if len(words) == 1:
        return _entries(console, registry)
    return _entry(console, registry, words[1])


def _registry(word: str) -> Registry:
    for kind in (word, word.removesuffix("s"), word.removesuffix("es")):
        if kind in REGISTRIES:
            return REGISTRIES[kind]
    close = did_you_mean(word, REGISTRIES) or ";"
    raise ConfigError(f"list: no registry {word!r}{close} there are: {', '.join(REGISTRIES)}")


def _overview(console: Console) -> None:
    table = _table("registry", "on the command line", "entries")
    for kind, registry in REGISTRIES.items():
        choice = f"{registry.group}=" if registry.group else "in YAML"
        table.add_row(kind, choice, ", ".join(registry.names()))
    console.print(table)
    console.print(f"\n{len(recipe_files())} recipes: vissl-lite list recipes")


def _entries(console: Console, registry: Registry) -> None:
    table = _table(registry.kind, "what it is", "from")
    for name in registry:
        entry = registry.describe(name)
        table.add_row(name, Text(entry.summary), entry.origin.partition(".")[0])
    console.print(table)


def _entry(console: Console, registry: Registry, name: str) -> None:
    entry = registry.describe(name)
    console.print(Text(f"{registry.kind} {name}  ({entry.origin})", style="bold"))
    console.print(Text(inspect.getdoc(registry[name]) or ""), soft_wrap=True)
    table = _table("parameter", "default", "type")
    for p in entry.parameters:
        hint = p.hint.__name__ if isinstance(p.hint, type) else str(p.hint)
        hint = hint.replace("typing.", "") + (f", {p.within}" if p.within else "")
        default = "must be given" if p.required else str(p.default)
        table.add_row(p.name, Text(default), Text(hint))
    console.print()
    console.print(table)


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, padding=(0, 2, 0, 0), show_header=bool(columns))
