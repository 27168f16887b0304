"""Named collections of interchangeable parts.

An entry is an ordinary class or function, and its signature is its schema: each parameter is a
YAML key, each default a default, each annotation a check. Parameters listed in `runtime` come from
the trainer, never from YAML. A parameter annotated `Annotated[Any, LOSSES]` holds the config of
another entry (or a list or dict of them) and is checked with it; `Annotated[int, at_least(1)]`
(vissl_lite/schema.py) bounds a number.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore

from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.schema import Parameter, conform_mapping, defaults_of, parameters_of, plain

REGISTRIES: dict[str, "Registry"] = {}


@dataclass(frozen=True)
class Description:
    """What `vissl-lite list` shows of an entry."""

    name: str
    summary: str
    origin: str
    parameters: tuple[Parameter, ...]


class Registry(Mapping[str, Callable]):
    """A mapping from names to entries.

    Args:
        kind: singular, as it appears in messages: "loss".
        group: Hydra group that offers the entries: "loss" makes `loss=swav` a choice.
        keyed: entries are stored below their name (`hooks.knn`), several may be chosen at once.
        runtime: parameters that the trainer supplies; an entry takes those that it names.
    """

    def __init__(
        self, kind: str, *, group: str = "", keyed: bool = False, runtime: tuple[str, ...] = ()
    ):
        self.kind, self.group, self.keyed, self.runtime = kind, group, keyed, runtime
        self._entries: dict[str, Callable] = {}
        REGISTRIES[kind] = self

    def register(self, name: str) -> Callable[[Callable], Callable]:
        """Decorator, or a call for foreign classes: `OPTIMIZERS.register("sgd")(torch.optim.SGD)`.

        Raises:
            ValueError: another entry has this name; the message names both origins.
        """

        def decorate(entry: Callable) -> Callable:
            taken = self._entries.get(name)
            if taken is not None and origin(taken) != origin(entry):
                raise ValueError(
                    f"{self.kind} {name!r} is already {origin(taken)};"
                    f" {origin(entry)} needs another name"
                )
            self._entries[name] = entry
            if self.group:
                self._offer(name, entry)
            return entry

        return decorate

    def _offer(self, name: str, entry: Callable) -> None:
        """Stores the defaults as a Hydra choice: `--cfg job` shows them and TAB knows them."""
        package = self.group.replace("/", ".") + (f".{name}" if self.keyed else "")
        head = {} if self.keyed else {"name": name}
        node = {**head, **defaults_of(self.parameters(name))}
        ConfigStore.instance().store(
            name, node, group=self.group, package=package, provider=entry.__module__
        )

    def parameters(self, name: str) -> tuple[Parameter, ...]:
        """The YAML keys of an entry, in the order of its signature."""
        return tuple(p for p in parameters_of(self[name]) if p.name not in self.runtime)

    def describe(self, name: str) -> Description:
        """Defaults, first docstring line and module of origin."""
        summary = (inspect.getdoc(self[name]) or "").strip().split("\n")[0]
        return Description(name, summary, origin(self[name]), self.parameters(name))

    def names(self) -> list[str]:
        return sorted(self._entries)

    def problems(self, config: Any, where: str = "", name: str | None = None) -> list[str]:
        """Every mistake in the config of one entry, nested entries included.

        `name` is the key that the config stands under, the entry's name in a keyed registry.
        """
        return self._conform(config, where or self.kind, name)[1]

    def check(self, config: Any, where: str = "", name: str | None = None) -> dict[str, Any]:
        """Returns `config` as a plain dict with defaults filled in and types converted.

        Raises:
            ConfigError: with every problem of this config, each with its place.
        """
        full, problems = self._conform(config, where or self.kind, name)
        if problems:
            raise ConfigError(*problems)
        return full

    def build(self, config: Any, where: str = "", **runtime: Any) -> Any:
        """Checks `config` and constructs the entry with it and the `runtime` values that it names.

        In a keyed registry the last part of `where` is the name: `hooks.knn`.

        Raises:
            ConfigError: what the entry says of its values; a plain ValueError, as the classes of
                torch raise, becomes one. Its subclasses stay: they are not about values.
        """
        full = self.check(config, where, where.rpartition(".")[2] or None)
        name = full.pop("name")
        wanted = inspect.signature(self[name]).parameters
        given = {key: value for key, value in runtime.items() if key in wanted}
        try:
            return self[name](**full, **given)
        except ConfigError as error:  # an entry knows its name, not where it stands in the config
            placed = (_placed(p, name, where or self.kind) for p in error.problems)
            raise type(error)(*placed) from None
        except ValueError as error:
            if type(error) is not ValueError:
                raise
            raise ConfigError(f"{where or self.kind}: {error}") from error

    def _conform(
        self, config: Any, where: str, name: str | None = None
    ) -> tuple[dict[str, Any], list[str]]:
        config = plain(config)
        config = {"name": config} if isinstance(config, str) else config
        config = {} if config is None and self.keyed else config
        if not isinstance(config, Mapping):
            return {}, [f"{where}: {config!r} is not the config of a {self.kind}"]
        name = name if self.keyed and name is not None else config.get("name")
        if not isinstance(name, str):
            return {}, [f"{where}: needs a 'name', one of: {', '.join(self.names())}"]
        if name not in self:
            return {}, [f"{where}: {self._unknown(name)}"]
        given = {key: value for key, value in config.items() if key != "name"}
        owner = f"{self.kind} {name!r}"
        full, problems = conform_mapping(given, self.parameters(name), where, owner)
        return {"name": name, **full}, problems

    def _unknown(self, name: str) -> str:
        close = did_you_mean(name, self) or ";"
        return f"unknown {self.kind} {name!r}{close} registered: {', '.join(self.names())}"

    def __getitem__(self, name: str) -> Callable:
        if name not in self._entries:
            raise ConfigError(self._unknown(name))
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self._entries)


def _placed(problem: str, name: str, where: str) -> str:
    """`warmup.length: ...` becomes `schedules.lr.length: ...`."""
    own = problem.startswith((f"{name}.", f"{name}:"))
    return where + problem.removeprefix(name) if own else problem


def origin(entry: Callable) -> str:
    """Where an entry was defined: `vissl_lite.losses.swav.SwAV`."""
    return f"{entry.__module__}.{entry.__qualname__}"
