"""`vissl-lite bench step config=RECIPE [key=value ...]`: what a training step costs, and where.

Prints a table; docs/profile.md explains it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from vissl_lite.overrides import compose
from vissl_lite.parallel.collectives import rank
from vissl_lite.parallel.process import join_group
from vissl_lite.profile.report import print_report
from vissl_lite.profile.settings import split_words
from vissl_lite.profile.step import bench_step


def main(words: Sequence[str]) -> int:
    """The command; returns its exit code.

    Raises:
        ConfigError: a wrong setting, or whatever would stop a run at its start.
    """
    settings, rest = split_words(words)
    join_group()
    result = bench_step(compose(rest), settings)
    if rank() == 0:
        print_report(result)
        if settings.json:
            settings.json.write_text(json.dumps(result, indent=1))
    return 0
