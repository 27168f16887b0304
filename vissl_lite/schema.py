"""From signatures to checked values, with a sentence for every value that does not fit."""

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

from vissl_lite.errors import did_you_mean


@dataclass(frozen=True)
class Range:
    """The numbers that a setting takes, part of its annotation: `Annotated[int, at_least(1)]`.

    It holds for a number, for each number in a list, and for nothing else (null, "auto").
    """

    low: float
    high: float = math.inf
    low_itself: bool = True

    def __contains__(self, value: float) -> bool:  # nan is in no range
        return self.low <= value <= self.high and (self.low_itself or value > self.low)

    def __str__(self) -> str:
        if self.low_itself:
            return f"{self.low} or more" if self.high == math.inf else f"{self.low} to {self.high}"
        return f"more than {self.low}" + (f", at most {self.high}" if self.high < math.inf else "")


def at_least(low: float) -> Range:
    """low, and all above."""
    return Range(low)


def above(low: float, at_most: float = math.inf) -> Range:
    """All above `low`, without it, up to `at_most`."""
    return Range(low, at_most, low_itself=False)


def between(low: float, high: float) -> Range:
    """From `low` to `high`, both included."""
    return Range(low, high)


@dataclass(frozen=True)
class Parameter:
    """One YAML key of an entry. `registry` is set when the value is the config of another entry."""

    name: str
    hint: Any
    default: Any
    required: bool
    registry: Any = None
    within: Range | None = None

    def __str__(self) -> str:
        return self.name if self.required else f"{self.name}={self.default}"


def parameters_of(entry: Callable) -> list[Parameter]:
    """The parameters of a class, dataclass or function that a config may set, in order."""
    hints = _hints(entry)
    factories = (
        {f.name: f.default_factory for f in dataclasses.fields(entry)}
        if dataclasses.is_dataclass(entry)
        else {}
    )
    found = []
    for p in inspect.signature(entry).parameters.values():  # pyright: ignore[reportArgumentType]
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        hint, more = hints.get(p.name, Any), []
        if typing.get_origin(hint) is typing.Annotated:
            hint, *more = typing.get_args(hint)
        within = next((note for note in more if isinstance(note, Range)), None)
        registry = next((note for note in more if not isinstance(note, Range)), None)
        factory = factories.get(p.name, dataclasses.MISSING)
        default = p.default if factory is dataclasses.MISSING else factory()
        required = default is p.empty
        found.append(Parameter(p.name, hint, _yaml(default), required, registry, within))
    return found


def plain(config: Any) -> Any:
    """A DictConfig or ListConfig as plain Python, interpolations resolved; all else as it is."""
    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config


def defaults_of(parameters: Sequence[Parameter]) -> dict[str, Any]:
    """The plain dict that YAML starts from; a value that must be given is '???'."""
    node: dict[str, Any] = {}
    for p in parameters:
        if dataclasses.is_dataclass(p.hint):
            node[p.name] = defaults_of(parameters_of(p.hint))  # pyright: ignore[reportArgumentType]
        else:
            node[p.name] = MISSING if p.required else p.default
    return node


def conform_mapping(
    config: Mapping,
    parameters: Sequence[Parameter],
    where: str,
    owner: str,
    words: Sequence[str] = (),
) -> tuple[dict[str, Any], list[str]]:
    """Fills `config` with defaults and converts its values.

    Args:
        where: place in the config, "" at its root.
        owner: what the keys belong to, for messages: "loss 'swav'".
        words: that a command line takes besides.

    Returns:
        All values by name, and the list of problems, empty when there are none.
    """
    accepted = {p.name: p for p in parameters}
    at, dot = (f"{where}: ", f"{where}.") if where else ("", "")
    full: dict[str, Any] = {}
    taken = ", ".join(map(str, parameters) if where else accepted)
    taken += f"; on the command line also: {', '.join(words)}" if words else ""
    problems = []
    for key in (key for key in config if key not in accepted):
        close = did_you_mean(key, [k for k in (*accepted, *words) if k != key]) or ";"
        problems.append(f"{at}unknown key {key!r} for {owner}{close} accepted: {taken}")
    for p in parameters:
        value = config.get(p.name, MISSING if p.required else p.default)
        if isinstance(value, str) and value == MISSING:
            problems.append(f"{at}{owner} needs a value for {p.name!r}")
            continue
        full[p.name], wrong = _conform_parameter(p, value, f"{dot}{p.name}")
        problems += wrong
    return full, problems


def _conform_parameter(p: Parameter, value: Any, where: str) -> tuple[Any, list[str]]:
    if p.registry is None or value is None:
        value, wrong = conform(value, p.hint, where)
        return value, wrong or out_of_range(value, p.within, where)
    if isinstance(value, list):
        return value, [
            w for i, v in enumerate(value) for w in p.registry.problems(v, f"{where}[{i}]")
        ]
    if p.hint is dict and isinstance(value, Mapping):
        return value, [
            w for key, v in value.items() for w in p.registry.problems(v, f"{where}.{key}", key)
        ]
    if list in (p.hint, *typing.get_args(p.hint)):
        return value, [f"{where}: {value!r} is not a list; write [{value!r}]"]
    return value, p.registry.problems(value, where)


def out_of_range(value: Any, within: Range | None, where: str) -> list[str]:
    """A sentence for each number of `value`, itself or the items of a list, that is not within."""
    if isinstance(value, (list, tuple)):
        return [w for i, v in enumerate(value) for w in out_of_range(v, within, f"{where}[{i}]")]
    if within is None or not _is_number(value) or value in within:
        return []
    return [f"{where}: {value if isinstance(value, int) else f'{value:g}'}; needs {within}"]


def conform(value: Any, hint: Any, where: str) -> tuple[Any, list[str]]:
    """Converts `value` to the type `hint`, without loss, or says what was expected.

    Returns:
        The converted value and the problems found, an empty list when there are none.
    """
    kind = typing.get_origin(hint)
    if hint is Any or hint is inspect.Parameter.empty:
        return value, []
    if dataclasses.is_dataclass(hint):
        return _conform_dataclass(value, typing.cast(type, hint), where)
    if kind in (typing.Union, types.UnionType):
        return _conform_union(value, typing.get_args(hint), where)
    if kind is typing.Literal:
        choices = typing.get_args(hint)
        return value, [] if value in choices else [_not_one_of(value, choices, where)]
    if hint in (list, tuple) or kind in (list, tuple):
        return _conform_sequence(value, kind or hint, typing.get_args(hint), where)
    if hint is dict or kind in (dict, Mapping):
        return _conform_dict(value, typing.get_args(hint), where)
    return _conform_scalar(value, hint, where)


def _conform_dataclass(value: Any, cls: type, where: str) -> tuple[Any, list[str]]:
    if isinstance(value, cls):  # the default, of a section that the config lacks
        return value, []
    if not isinstance(value, Mapping):
        return value, [f"{where}: {value!r} is not a mapping"]
    full, problems = conform_mapping(value, parameters_of(cls), where, owner=f"{where!r}")
    return (full if problems else cls(**full)), problems


def _conform_scalar(value: Any, hint: Any, where: str) -> tuple[Any, list[str]]:
    if hint is float and (_is_number(value) or (isinstance(value, str) and _is_float(value))):
        return float(value), []  # YAML reads 1e-6 as a string
    if hint is int and isinstance(value, bool):
        return value, [f"{where}: {value!r} is not {_NAMES[int]}"]
    if hint in (str, Path) and isinstance(value, (str, Path)):
        return hint(value), []
    if hint in _NAMES and not isinstance(value, hint):
        return value, [f"{where}: {value!r} is not {_NAMES[hint]}"]
    return value, []  # fits, or a type that YAML cannot express: then the constructor judges


def _conform_union(value: Any, hints: tuple, where: str) -> tuple[Any, list[str]]:
    exact_first = sorted(hints, key=lambda h: h is not type(value))
    for hint in exact_first:
        converted, wrong = conform(value, hint, where)
        if not wrong:
            return converted, []
    expected = " or ".join(_expected(hint) for hint in hints)
    lists = any(_is_sequence(hint) for hint in hints) and isinstance(value, (str, int, float))
    return value, [
        f"{where}: {value!r} is not {expected}" + (f"; write [{value}]" if lists else "")
    ]


def _conform_sequence(value: Any, kind: type, hints: tuple, where: str) -> tuple[Any, list[str]]:
    if not isinstance(value, (list, tuple)):
        return value, [f"{where}: {value!r} is not a list"]
    fixed = kind is tuple and hints and hints[-1] is not Ellipsis
    if fixed and len(value) != len(hints):
        return value, [f"{where}: needs {len(hints)} values, got {len(value)}: {list(value)}"]
    items = hints if fixed else [hints[0] if hints else Any] * len(value)
    pairs = [conform(v, hint, f"{where}[{i}]") for i, (v, hint) in enumerate(zip(value, items))]
    return kind(v for v, _ in pairs), [w for _, wrong in pairs for w in wrong]


def _conform_dict(value: Any, hints: tuple, where: str) -> tuple[Any, list[str]]:
    if not isinstance(value, Mapping):
        return value, [f"{where}: {value!r} is not a mapping"]
    hint = hints[1] if hints else Any
    pairs = {key: conform(v, hint, f"{where}.{key}") for key, v in value.items()}
    return {key: v for key, (v, _) in pairs.items()}, [
        w for _, wrong in pairs.values() for w in wrong
    ]


def _not_one_of(value: Any, choices: tuple, where: str) -> str:
    close = did_you_mean(value, map(str, choices))
    return f"{where}: {value!r} is not one of {', '.join(map(str, choices))}{close}"


def _expected(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    if _is_sequence(hint):
        return "a list"
    return _NAMES.get(hint, str(hint))


def _is_sequence(hint: Any) -> bool:
    return (typing.get_origin(hint) or hint) in (list, tuple)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _hints(entry: Callable) -> dict[str, Any]:
    try:
        owner = entry.__init__ if inspect.isclass(entry) else entry
        return typing.get_type_hints(owner, include_extras=True)
    except (NameError, TypeError, AttributeError):  # a foreign class's do not resolve
        return {}


def _yaml(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default


_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Path: "a path",
    type(None): "null",
}
