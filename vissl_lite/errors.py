"""What a user gets to read: what is wrong, where, and how to mend it."""

import difflib
from collections.abc import Iterable


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


class WorkerDied(RuntimeError):
    """A process that makes batches ended: of what, and at which image.

    The command line prints it without a traceback and exits with code 1.
    """


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Returns `; did you mean 'temperature'?` when an option is close to `word`, else ''."""
    close = difflib.get_close_matches(str(word), [str(option) for option in options], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
