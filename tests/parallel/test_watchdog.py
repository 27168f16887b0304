"""A run that stands still: who is missing, and where."""

import json
import multiprocessing
import sys
import time
from datetime import timedelta
from itertools import count
from pathlib import Path
from threading import Thread

import pytest
import torch
import torch.distributed as dist
from distributed import FORKSERVER
from parallel.rank_programs import left_without_a_store, stand_still

from vissl_lite.parallel import watchdog
from vissl_lite.parallel.watchdog import (
    EXIT_OTHER_RANK,
    EXIT_STUCK,
    Place,
    Watchdog,
    describe,
    place_of,
)

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


@pytest.mark.parametrize(
    ("inner", "outer", "collective"),
    [
        ("distributed/distributed_c10d.py", "distributed/c10d_logger.py", "inner of "),
        ("_ops.py", "distributed/_functional_collectives.py", "outer of "),
        ("autograd/graph.py", "_tensor.py", ""),
    ],
)
def test_a_place_names_the_collective(inner, outer, collective):
    """ours() calls outer() calls inner(), the latter two in files of torch."""
    folder, here = Path(torch.__file__).parent, {"place_of": place_of, "sys": sys}
    for text, file in (
        ("def inner(): return place_of(sys._getframe(), 3)", folder / inner),
        ("def outer(): return inner()", folder / outer),
        ("def ours(): return outer()", "hook.py"),
    ):
        exec(compile(text, str(file), "exec"), here)
    assert here["ours"]() == Place(3, f"{collective}ours (hook.py:1)", waits=True)


def test_a_run_that_moves_is_left_alone():
    with Watchdog(0.2, dist.HashStore(), 0, 2) as watched:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            watched.step = time.monotonic_ns
            time.sleep(0.01)
    assert not watched._thread.is_alive()


def waits_for_another(moves, said):
    """Outside of any collective, such as for a list that another rank makes."""
    sys.stderr, store = said.open("w"), dist.HashStore()
    with Watchdog(0.4, store, 0, 2):
        Thread(target=another, args=(store, moves), daemon=True).start()
        time.sleep(3)


def another(store, moves):
    for beat in count():
        said = [-1, "lists (source.py:1)", False, beat if moves else 0, beat]
        store.set("place 1", json.dumps(said))
        time.sleep(0.02)


@pytest.mark.parametrize(("moves", "code"), [(True, 0), (False, EXIT_STUCK)])
def test_ranks_that_wait_for_one_that_moves_are_left_alone(tmp_path, moves, code):
    rank = multiprocessing.get_context("fork").Process(
        target=waits_for_another, args=(moves, tmp_path / "said")
    )
    rank.start()
    rank.join(30)
    assert rank.exitcode == code
    assert ("the run stands still" in (tmp_path / "said").read_text()) == (not moves)


def left_in_a_collective(said):
    """As on NCCL: another rank has failed, and nothing raises here."""
    sys.stderr = said.open("w")
    watchdog.AFTER_FAILURE_S = 0.2
    store = dist.HashStore()
    store.set("failed", "rank 1 failed with ValueError: the disk is full")
    with Watchdog(0.4, store, 0, 2) as watched:
        watched.step = time.monotonic_ns  # it is not the clock of standing still that ends it
        time.sleep(60)


def test_a_rank_ends_after_another_has_failed(tmp_path):
    rank = multiprocessing.get_context("fork").Process(
        target=left_in_a_collective, args=(tmp_path / "said",)
    )
    rank.start()
    rank.join(30)
    assert rank.exitcode == EXIT_OTHER_RANK
    said = (tmp_path / "said").read_text()
    assert said == "rank 0 stops, because rank 1 failed with ValueError: the disk is full\n"


def test_a_rank_ends_after_the_store_is_gone(tmp_path):
    server = dist.TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=60), False)
    rank = FORKSERVER.Process(target=left_without_a_store, args=(server.port, tmp_path / "said"))
    rank.start()
    server.get("place 1")  # it watches
    del server
    rank.join(60)
    assert rank.exitcode == EXIT_OTHER_RANK
    assert "the process that kept the job's store" in (tmp_path / "said").read_text()


def test_a_run_that_ends_without_a_store_ends_as_usual():
    server = dist.TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=20), False)
    store = dist.TCPStore("127.0.0.1", server.port, None, False, timedelta(seconds=20))
    with Watchdog(0.4, store, 1, 2) as watched:
        server.get("place 1")
        del server
        time.sleep(0.2)
    assert not watched._thread.is_alive()


@pytest.mark.parametrize("how", ["sleeps", "stopped"])
def test_a_rank_that_does_not_come_is_named(tmp_path, how):
    server = dist.TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=60), False)
    ranks = [
        FORKSERVER.Process(target=stand_still, args=(r, server.port, how, tmp_path / str(r)))
        for r in range(3)
    ]
    for rank in ranks:
        rank.start()
    for rank in (ranks[0], ranks[2]):
        rank.join(60)
    for rank in ranks:
        rank.kill()
    said = [(tmp_path / str(r)).read_text() for r in (0, 2)]
    first, missing, waiting, hint = said[0].splitlines()
    assert first == "the run stands still: nothing has moved for 3 s (launch.timeout_s)"
    place = "after step 7, in oversleep (rank_programs.py:"
    where = {"sleeps": place, "stopped": "no sign of life"}[how]
    assert missing.startswith(f"  missing: rank 1, {where}")
    assert waiting.startswith(
        "  waiting: ranks 0, 2, after step 8, in all_reduce of all_reduce_sum"
    )
    assert hint == "  go on with resume=RUN"
    assert said[1] == ""
    assert [ranks[r].exitcode for r in (0, 2)] == [EXIT_STUCK] * 2
