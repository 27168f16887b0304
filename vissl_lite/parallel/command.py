"""Commands that work in several processes of this machine: `launch.processes=N` among their words.

own, how = without_launch(words)
if (processes := processes_to_start(how, device)) > 1:
    return start(["extract", *own], processes)
join_group(PATIENCE_S, device)
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from vissl_lite.errors import ConfigError
from vissl_lite.parallel.launch import Launch, run_processes
from vissl_lite.schema import conform

WORD = "launch.processes="
PATIENCE_S = 7 * 86400.0  # they meet seldom; whoever starts them sees one die


def without_launch(words: Sequence[str]) -> tuple[list[str], Launch]:
    """The other words, and what those on the launch say.

    Raises:
        ConfigError: no number of processes.
    """
    given = [yaml.safe_load(word.removeprefix(WORD)) for word in words if word.startswith(WORD)]
    how, problems = conform({"processes": given[-1]} if given else {}, Launch, "launch")
    if problems:
        raise ConfigError(*problems)
    return [word for word in words if not word.startswith(WORD)], how


def start(words: Sequence[str], processes: int) -> int:
    """The same command in so many processes; its exit code."""
    with tempfile.TemporaryDirectory(prefix="vissl_lite-") as logs:
        command = [sys.executable, "-m", "vissl_lite", *words]
        return run_processes(command, processes, Path(logs))
