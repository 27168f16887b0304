"""What a command prints when it fails: a block of sentences for mistakes, a traceback for bugs."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigIndexError, OmegaConfBaseException
from yaml import YAMLError

from vissl_lite import REGISTRIES
from vissl_lite.errors import ConfigError, NonFiniteLoss, SaveFailed, WorkerDied, did_you_mean
from vissl_lite.parallel.failure import epitaph, is_communication, leave_note, say_once
from vissl_lite.parallel.launch import EXIT_CONFIG, ProcessFailed
from vissl_lite.parallel.watchdog import EXIT_OTHER_RANK

_READABLE = (
    "close every bracket and quote; a value in which = , : or brackets mean nothing stands in"
    " quotes of its own: \"key='a=b'\""
)
_ITEMS = "its items are counted from 0, as in data.views[0].size=96"
USER_ERRORS = (ConfigError, HydraException, OmegaConfBaseException, YAMLError)


def report(error: Exception) -> int:
    """Prints what the user has to know of an error, once for all ranks; returns the exit code."""
    if isinstance(error, USER_ERRORS) or _names_no_item(error):
        text, code = block(error), EXIT_CONFIG
    elif isinstance(error, (NonFiniteLoss, SaveFailed, WorkerDied)):
        text, code = f"stopped: {error}", 1
    elif isinstance(error, ProcessFailed):
        text, code = error.message, error.code
    elif is_communication(error):
        text, code = epitaph(error), EXIT_OTHER_RANK
    else:
        text, code = "".join(traceback.format_exception(error)).rstrip(), 1
    leave_note(error)
    if text and say_once(text):
        print(text, file=sys.stderr, flush=True)
    return code


def block(error: Exception) -> str:
    """What the user reads: one line per problem."""
    ours = next((e for e in _chain(error) if isinstance(e, ConfigError)), None)
    problems = ours.problems if ours else [in_our_words(error)]
    count = "" if len(problems) == 1 else f" ({len(problems)} problems)"
    lines = "\n".join(problem.replace("\n", "\n  ") for problem in problems)
    return f"config error{count}\n  " + lines.replace("\n", "\n  ")


def _names_no_item(error: Exception) -> bool:
    """`data.views.size=9`: OmegaConf wants a number where a list is, and raises what int() does."""
    *_, last = [Path(), *(Path(f.filename) for f in traceback.extract_tb(error.__traceback__))]
    return "invalid literal for int()" in str(error) and "omegaconf" in last.parts


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what caused it: OmegaConf wraps what a resolver raises."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def unreadable(word: str) -> str:
    """What is said of a word of the command line that Hydra's grammar does not know."""
    return f"{word} cannot be read; {_READABLE}"


def in_our_words(error: Exception) -> str:
    """One sentence from an exception of Hydra, OmegaConf or the YAML parser."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if group == "hydra/launcher" and name.startswith("submitit"):
            return 'hydra/launcher: SLURM jobs need submitit; pip install "vissl-lite[slurm]"'
        offered = {r.group: r.names() for r in REGISTRIES.values()}
        options = error.options or offered.get(group, [])  # Hydra knows none of a list
        close = did_you_mean(name, options) or ";"
        return f"{group}: unknown {name!r}{close} there are: {', '.join(options)}"
    if isinstance(error, OverrideParseException):
        return unreadable(error.override.lstrip("+"))
    if left_out := re.match(r"Could not delete from config. '(.+)' does not exist", str(error)):
        return f"~{left_out[1]} leaves out what is not there; --cfg job shows what is"
    missing = next((e for e in _chain(error) if isinstance(e, ConfigIndexError)), None)
    if missing:
        return f"{missing.full_key}: the list has no such item; {_ITEMS}"
    if _names_no_item(error):
        return f"{str(error).rpartition(': ')[2]} names nothing in a list; {_ITEMS}"
    return str(error).strip().split("\nSee https")[0]
