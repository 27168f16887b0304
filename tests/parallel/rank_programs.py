"""What the processes do that test_watchdog and test_process fork: no process imports torch anew."""

import os
import signal
import sys
import time
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as dist

from vissl_lite.parallel import process, watchdog
from vissl_lite.parallel.collectives import all_reduce_sum
from vissl_lite.parallel.watchdog import Watchdog


def oversleep(how: str) -> None:
    if how == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(600)


def stand_still(rank: int, port: int, how: str, said: Path) -> None:
    """Rank 1 of three oversleeps after step 7; `said` gets what this process says."""

    def connect() -> dist.Store:
        return dist.TCPStore("127.0.0.1", port, None, False, timedelta(seconds=60), False)

    with said.open("w") as file:
        os.dup2(file.fileno(), 2)
    dist.init_process_group("gloo", store=connect(), rank=rank, world_size=3)
    all_reduce_sum(torch.ones(1))  # the first call imports for seconds
    store, hint = dist.PrefixStore("w", connect()), "go on with resume=RUN"
    with Watchdog(3.0, store, rank, 3, hint=hint) as watchdog:
        watchdog.step = lambda: step
        for step in range(100):
            all_reduce_sum(torch.ones(1))
            if rank == 1 and step == 7:
                oversleep(how)


def left_without_a_store(port: int, said: Path) -> None:
    """As on NCCL under srun: rank 0 has ended, and the store with it."""
    sys.stderr = said.open("w")
    watchdog.AFTER_FAILURE_S = 0.2
    store = dist.TCPStore("127.0.0.1", port, None, False, timedelta(seconds=20))
    with Watchdog(0.4, store, 1, 2) as watched:
        watched.step = time.monotonic_ns
        time.sleep(60)


def add_up(environ: dict[str, str], dies: bool, answer: Connection) -> None:
    """Answers the start time of the job, and the sum over a one of each rank."""
    os.environ.update(environ)
    process.join_group(20, "auto")
    x = torch.ones(1)
    if dist.is_initialized():
        dist.all_reduce(x)
    answer.send((process.start_time(), int(x)))
    if dies:
        os._exit(9)
    process.leave_group()
