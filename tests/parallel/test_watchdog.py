"""A run that stands still: who is missing, and where."""

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist

from vissl_lite.parallel.watchdog import EXIT_STUCK, Place, Watchdog, describe

REDUCE = Place(12, "all_reduce_sum (collectives.py:48)", waits=True)
SLEEP = Place(12, "after_step (my_hook.py:17)", waits=False)
EARLIER = Place(11, "_next (loader.py:113)", waits=False)
START = Place(-1, "train (cli.py:9)", waits=True)


@pytest.mark.parametrize(
    ("places", "missing", "waiting"),
    [
        ([REDUCE, SLEEP, REDUCE, REDUCE], ["rank 1, after step 12, in after_step (my_hook.py:17)"],
         ["ranks 0, 2-3, after step 12, in all_reduce_sum (collectives.py:48)"]),
        ([REDUCE, REDUCE, EARLIER], ["rank 2, after step 11, in _next (loader.py:113)"],
         ["ranks 0-1, after step 12, in all_reduce_sum (collectives.py:48)"]),
        ([None, REDUCE, None], ["ranks 0, 2, no sign of life"],
         ["rank 1, after step 12, in all_reduce_sum (collectives.py:48)"]),
        ([START, REDUCE], ["rank 0, before the first step, in train (cli.py:9)"],
         ["rank 1, after step 12, in all_reduce_sum (collectives.py:48)"]),
    ],
)  # fmt: skip
def test_who_is_missing(places, missing, waiting):
    assert describe(places, 600).splitlines() == [
        "the run stands still: nothing has moved for 600 s (launch.timeout_s)",
        *(f"  missing: {words}" for words in missing),
        *(f"  waiting: {words}" for words in waiting),
    ]


def test_ranks_in_different_collectives_are_all_named():
    other = Place(12, "barrier (checkpoint.py:9)", waits=True)
    assert describe([REDUCE, other], 5).splitlines()[1:] == [
        "  waiting: rank 0, after step 12, in all_reduce_sum (collectives.py:48)",
        "  waiting: rank 1, after step 12, in barrier (checkpoint.py:9)",
    ]


@pytest.mark.parametrize("place", [REDUCE, SLEEP])
def test_ranks_in_one_place_compute_or_have_a_slow_network(place):
    assert describe([place] * 4, 600) is None


def test_a_run_that_moves_is_left_alone():
    with Watchdog(0.2, dist.HashStore(), 0, 2) as watchdog:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            watchdog.step = time.monotonic_ns
            time.sleep(0.01)
    assert not watchdog._thread.is_alive()


RANK = """
import os, signal, sys, time
import torch, torch.distributed as dist
from datetime import timedelta
from vissl_lite.parallel.watchdog import Watchdog
from vissl_lite.parallel.collectives import all_reduce_sum

rank, port, how = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
connect = lambda: dist.TCPStore("127.0.0.1", port, None, False, timedelta(seconds=60), False)
dist.init_process_group("gloo", store=connect(), rank=rank, world_size=3)

def oversleep():
    if how == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(600)

all_reduce_sum(torch.ones(1))  # the first call imports for seconds
with Watchdog(3.0, dist.PrefixStore("w", connect()), rank, 3, hint="go on with resume=RUN") as dog:
    dog.step = lambda: step
    for step in range(100):
        all_reduce_sum(torch.ones(1))
        if rank == 1 and step == 7:
            oversleep()
"""


@pytest.mark.parametrize("how", ["sleeps", "stopped"])
def test_a_rank_that_does_not_come_is_named(tmp_path, how):
    server = dist.TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=60), False)
    (tmp_path / "rank.py").write_text(RANK)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    options = {"stderr": subprocess.PIPE, "text": True, "env": env}
    command = [sys.executable, str(tmp_path / "rank.py")]
    ranks = [
        subprocess.Popen([*command, str(r), str(server.port), how], **options) for r in range(3)
    ]
    said = [ranks[r].communicate(timeout=60)[1] for r in (0, 2)]
    ranks[1].kill()
    ranks[1].communicate()
    first, missing, waiting, hint = said[0].splitlines()
    assert first == "the run stands still: nothing has moved for 3 s (launch.timeout_s)"
    where = "after step 7, in oversleep (rank.py:" if how == "sleeps" else "no sign of life"
    assert missing.startswith(f"  missing: rank 1, {where}")
    assert waiting.startswith("  waiting: ranks 0, 2, after step 8, in all_reduce_sum (collectives")
    assert hint == "  go on with resume=RUN"
    assert said[1] == ""
    assert [ranks[r].returncode for r in (0, 2)] == [EXIT_STUCK] * 2
