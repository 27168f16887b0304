"""What a user gets to read: what is wrong, where, and how to mend it."""

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class ConfigError(ValueError):
    """One or more mistakes in what the user asked for, each a sentence of its own.

    The command line prints `problems` as one block and exits with code 2, without a traceback.
    """

    def __init__(self, *problems: str):
        self.problems = list(problems)
        super().__init__("\n".join(problems))

    def __reduce__(self):  # survives the way from a worker process
        return type(self), tuple(self.problems)


class MissingPath(ConfigError):
    """A file or folder that is not there."""


class NonFiniteLoss(RuntimeError):
    """The loss became nan or inf: since which step, what was saved, what to try.

    The command line prints it without a traceback and exits with code 1.
    """


class SaveFailed(OSError):
    """A checkpoint or file of weights could not be written; the ones before it are as they were.

    The command line prints it without a traceback and exits with code 1.
    """


class WorkerDied(RuntimeError):
    """A process that makes batches ended: of what, and at which image.

    The command line prints it without a traceback and exits with code 1.
    """


@contextmanager
def place_renamed(old: str, new: str) -> Iterator[None]:
    """Sentences of a ConfigError that begin `old: ` begin `new: `; also a decorator."""
    try:
        yield
    except ConfigError as error:
        problems = (re.sub(f"^{old}: ", f"{new}: ", problem) for problem in error.problems)
        raise type(error)(*problems) from None


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Returns `; did you mean 'temperature'?` when an option is close to `word`, else ''.

    Close is one that differs in a few letters; else one that begins with the word (temp), or the
    word with it; else one with a part between underscores that differs little (kep, keep_last).
    """
    word, known = str(word), [str(option) for option in options]
    close = difflib.get_close_matches(word, known, n=1)
    close = close or [o for o in known if _begins(word, o) or _begins(o, word)]
    parts = ((o, o.split("_")) for o in known if "_" in o)
    close = close or [o for o, own in parts if difflib.get_close_matches(word, own, 1, 0.75)]
    return f"; did you mean {close[0]!r}?" if close else ""


def _begins(start: str, word: str) -> bool:
    return len(start) > 1 and word.startswith(start)
