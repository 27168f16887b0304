"""Words of the command line in Hydra's grammar: KEY=VALUE, +KEY=VALUE, GROUP@PLACE=NAME, ~KEY."""

import re
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException


def key_of(word: str) -> str:
    """What a word sets: the text before `=`, without the signs for adding."""
    return word.partition("=")[0].lstrip("+")


def value_of(word: str) -> Any:
    """The value that Hydra reads; None where there is none, or it cannot be read."""
    if "=" not in word or word.startswith("~"):
        return None
    try:
        return OverridesParser.create().parse_override(word).value()
    except HydraException:
        return None


def sweeps(word: str) -> bool:
    """Whether the word gives several values, each for a job: KEY=A,B, KEY=range(3), KEY=glob(*)."""
    if "=" not in word or word.startswith(("~", "-")):
        return False
    try:
        return OverridesParser.create().parse_override(word).is_sweep_override()
    except HydraException:
        return False


def quoted(value: str) -> str:
    """Any path as Hydra reads it: sweeps make folders such as `lr=0.1,seed=0`."""
    if value[:1] in ("'", '"') or re.fullmatch(r"[\w./~:+@%-]*", value):
        return value
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + m[2].replace("'", "\\'"), value) + "'"


def unquoted(word: str) -> str:
    """The value of `KEY=VALUE`, which may stand in quotes of Hydra's."""
    value = word.partition("=")[2]
    if value[:1] not in ("'", '"'):
        return value
    return str(OverridesParser.create().parse_override(word).value())
