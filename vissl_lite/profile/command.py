"""`vissl-lite bench step config=RECIPE [key=value ...]`: what a training step costs, and where.

Prints a table; docs/profile.md explains it. As a run, it takes all GPUs of this machine, or
`launch.processes`, and goes by torchrun and srun.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from vissl_lite.overrides import compose
from vissl_lite.parallel.collectives import rank
from vissl_lite.parallel.command import start, without_launch
from vissl_lite.parallel.launch import Launch, die_with_parent, processes_to_start
from vissl_lite.parallel.process import adopt_launcher, join_group
from vissl_lite.profile.report import print_report
from vissl_lite.profile.settings import PROFILED, READERS, Settings, split_words
from vissl_lite.profile.step import bench_step

USAGE = f"""usage: vissl-lite bench step config=RECIPE [key=value ...]

steps              measured; default {Settings.steps}
warmup             steps before them; default {Settings.warmup}
images             source: the recipe's; synthetic: noise; auto: the recipe's where they can be
                   opened, else noise; resident: one batch of noise that stays on the device;
                   default {Settings.images}
trace              file for Perfetto, .json or .json.gz, of {PROFILED} more steps
json               file for the table as data
launch.processes   of this machine; default: one per GPU
Everything else changes the recipe, as for a run.
"""


def main(words: Sequence[str]) -> int:
    """The command; returns its exit code.

    Raises:
        ConfigError: a wrong setting, or whatever would stop a run at its start.
    """
    if not words or {"-h", "--help"} & set(words):
        print(USAGE)
        return 0
    adopt_launcher()
    own, how = without_launch(words)
    settings, rest = split_words(own)
    config = compose(rest, [*READERS])
    processes = processes_to_start(how, config.device)
    if processes > 1:
        return start(["bench", "step", *own], processes)
    die_with_parent()
    join_group(Launch.timeout_s, config.device)
    result = bench_step(config, settings)
    if rank() == 0:
        print_report(result)
        if settings.json:
            settings.json.write_text(json.dumps(result, indent=1))
    return 0
