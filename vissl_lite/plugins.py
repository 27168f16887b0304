"""Where parts and recipes come from: this package, and packages that declare entry points.

A third-party package declares, and needs nothing else:

    [project.entry-points."vissl_lite.plugins"]   # a module; importing it registers its entries
    acme = "acme_ssl.parts"
    [project.entry-points."vissl_lite.configs"]   # a folder of YAML, found without importing it
    acme = "acme_ssl.configs"
"""

import functools
import importlib
import importlib.util
import logging
import pkgutil
import re
from importlib.metadata import entry_points
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

log = logging.getLogger(__name__)

FOLDERS = (
    *("sources", "transforms", "trunks", "heads", "losses"),
    *("optimizers", "schedules", "hooks", "evaluations", "loggers"),
)


@functools.cache
def load_entries() -> dict[str, Exception]:
    """Fills the registries; every process that builds parts calls it first.

    Returns:
        The third-party plugins that failed to import, by name; each was warned about.
    """
    for folder in FOLDERS:
        package = importlib.import_module(f"vissl_lite.{folder}")
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                importlib.import_module(f"{package.__name__}.{module.name}")
    from vissl_lite.config import root_node

    ConfigStore.instance().store("schema", root_node(), provider="vissl_lite")
    return _load_third_parties()


def _load_third_parties() -> dict[str, Exception]:
    failed: dict[str, Exception] = {}
    for plugin in sorted(entry_points(group="vissl_lite.plugins"), key=lambda e: e.name):
        try:
            plugin.load()
        except Exception as error:  # one broken plugin must not stop the others
            failed[plugin.name] = error
            log.warning(
                "plugin %r (%s) did not load and is left out: %s: %s",
                *(plugin.name, plugin.value, type(error).__name__, error),
            )
    return failed


def config_dir() -> Path:
    """The folder of recipes: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


class RecipeSource(ConfigSource):
    """A config folder whose group `config` offers its recipes at any depth.

    Hydra's own source does not look into sub-folders of a group, so that TAB, `glob()` and the
    list of options would miss every recipe.
    """

    @staticmethod
    def scheme() -> str:
        return "recipes"

    def load_config(self, config_path: str) -> ConfigResult:
        file = self._file(config_path)
        if not file.is_file():
            raise ConfigLoadError(f"no config file {file}")
        return ConfigResult(
            config=OmegaConf.load(file),  # pyright: ignore[reportArgumentType]
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header=self._header(file.read_text(encoding="utf-8")),
        )

    def _file(self, config_path: str) -> Path:
        return Path(self.path, self._normalize_file_name(config_path))

    @staticmethod
    def _header(text: str) -> dict[str, str | None]:
        header: dict[str, str | None] = {"package": None}
        for line in text.splitlines():
            if not line.startswith("#"):
                break
            key, _, value = line.lstrip("# ").partition(" ")
            if key.startswith("@package"):
                header["package"] = value.strip()
        return header

    def available(self) -> bool:
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        return Path(self.path, config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        return self._file(config_path).is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        folder = Path(self.path, config_path)
        if config_path == "config":
            return [] if results_filter == ObjectType.GROUP else recipes_in(folder)
        children = folder.iterdir() if folder.is_dir() else ()
        groups = [c.name for c in children if c.is_dir() and not c.name.startswith("_")]
        configs = [c.stem for c in folder.glob("*.yaml")]
        wanted = {ObjectType.GROUP: groups, ObjectType.CONFIG: configs}
        return sorted(wanted.get(results_filter, groups + configs))  # pyright: ignore


class ConfigFolders(SearchPathPlugin):
    """Adds our recipes and those of third parties to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for provider, folder in config_folders():
            search_path.append(provider=provider, path=f"recipes://{folder}")


def config_folders() -> list[tuple[str, Path]]:
    """(provider, folder) of every folder of YAML, ours first."""
    folders = [("vissl_lite", config_dir())]
    for plugin in sorted(entry_points(group="vissl_lite.configs"), key=lambda e: e.name):
        top, *rest = plugin.value.split(".")
        spec = importlib.util.find_spec(top)  # locates without importing
        locations = spec.submodule_search_locations if spec else None
        folders += [(plugin.name, Path(location, *rest)) for location in locations or ()]
    return folders


def path_variables() -> dict[str, str]:
    """The environment variables that paths of the configs begin with, and what they are unset.

    {"CIFAR10": "datasets/cifar10"} of `path: ${oc.env:CIFAR10,datasets/cifar10}/train`
    """
    files = (file for _, folder in config_folders() for file in folder.rglob("*.yaml"))
    texts = (file.read_text(encoding="utf-8") for file in files)
    return {n: unset for t in texts for n, unset in re.findall(r"\$\{oc\.env:(\w+),([^}]+)\}", t)}


def recipes_in(folder: Path) -> list[str]:
    """Names of the recipes below a folder `config`; files named `_*` are their shared parents."""
    files = (f for f in folder.rglob("*.yaml") if not f.name.startswith("_"))
    return sorted(str(f.relative_to(folder).with_suffix("")) for f in files)


def recipe_files() -> dict[str, Path]:
    """Every recipe by its name, third-party ones included; parents (`_name.yaml`) are left out."""
    folders = [folder / "config" for _, folder in config_folders()]
    found = {name: folder / f"{name}.yaml" for folder in folders for name in recipes_in(folder)}
    return dict(sorted(found.items()))


def recipes() -> list[str]:
    """The names of all recipes."""
    return list(recipe_files())


@functools.cache
def register_with_hydra() -> None:
    """Makes Hydra find recipes; only in processes that call it, never by being installed."""
    Plugins.instance().register(RecipeSource)
    Plugins.instance().register(ConfigFolders)
