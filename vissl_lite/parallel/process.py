"""Which process this is, who started it, and the group it belongs to."""

import functools
import os
import random
import re
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist

from vissl_lite.errors import ConfigError

PATIENCE = timedelta(minutes=10)  # for the other processes to start
MARGIN_S = 60.0  # the watchdog speaks first; then the group's own timeout ends what it missed
JOB_ID = ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID", "SUBMITIT_LOCAL_JOB_ID")


# ---------------------------------------------------------------- what the launcher says


def adopt_launcher() -> None:
    """Translates what srun or submitit's local executor says into torchrun's variables.

    A batch script of SLURM that runs without srun, and a step of one task, is no launcher: there
    the command starts its own processes.
    """
    if "RANK" in os.environ:
        return
    for names in (
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
        ("SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_NTASKS", "SUBMITIT_LOCAL_LOCALID"),
    ):
        if all(name in os.environ for name in names) and int(os.environ[names[1]]) > 1:
            _adopt(*(os.environ[name] for name in names))
            return


def _adopt(rank: str, world: str, local_rank: str) -> None:
    nodes = int(os.environ.get("SLURM_STEP_NUM_NODES", "1"))
    job = " ".join(os.environ.get(name, "") for name in (*JOB_ID, "SLURM_STEP_ID"))
    defaults = {
        "MASTER_ADDR": first_host(os.environ.get("SLURM_STEP_NODELIST", "127.0.0.1")),
        "MASTER_PORT": str(random.Random(job).randint(20000, 30000)),  # equal on all ranks
        "LOCAL_WORLD_SIZE": str(int(world) // nodes),
    }
    os.environ.update(defaults | dict(os.environ))
    os.environ.update(RANK=rank, WORLD_SIZE=world, LOCAL_RANK=local_rank)


def first_host(nodes: str) -> str:
    """The first name in a SLURM node list: "gpu[007-010,12],cpu3" gives "gpu007"."""
    found = re.match(r"([^,\[]+)(?:\[(\w+)[^\]]*\])?([^,\[]*)", nodes)
    if found is None:
        raise ConfigError(f"SLURM_STEP_NODELIST: {nodes!r} names no node; set MASTER_ADDR")
    return "".join(part or "" for part in found.groups())


def is_launched() -> bool:
    """Whether torchrun, srun, submitit or our own command started this process as a rank."""
    return "RANK" in os.environ


def is_task_of_srun() -> bool:
    """Whether srun started this rank, and not torchrun or our own command within a task of it."""
    names = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_STEP_NUM_TASKS"}
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    same = all(os.environ.get(own, "") == os.environ.get(theirs) for own, theirs in names.items())
    return is_launched() and same and not by_torchrun


def launched_world_size() -> int:
    """Processes that torchrun or another launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched_rank() -> int:
    return int(os.environ.get("RANK", "0"))


def start_time() -> str:
    """When the job began, the same text on all ranks and after every restart by its launcher.

    torchrun: from the store of its agent, which outlives the processes. SLURM: the id of the job.

    Raises:
        ConfigError: torchrun has lost the node whose agent knew it.
    """
    now = time.strftime("%Y-%m-%d_%H-%M-%S")
    if not is_launched():
        return now
    if "TORCHELASTIC_RUN_ID" not in os.environ and "SLURM_JOB_ID" in os.environ:
        return f"slurm-{os.environ['SLURM_JOB_ID']}.{os.environ['SLURM_STEP_ID']}"
    store = job_store()
    if launched_rank() == 0:
        restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
        if restarted and not store.check(["start_time"]):
            raise ConfigError(
                "run_dir: torchrun lost its first node, and with it the name of the run folder;"
                " go on with resume=FOLDER, and give run_dir=FOLDER next time"
            )
        store.compare_set("start_time", "", now)
    store.wait(["start_time"], PATIENCE)
    return store.get("start_time").decode()


def may_restart() -> bool:
    """Whether a launcher may have started this same job before, with the same run folder."""
    by_slurm = is_launched() and "SLURM_JOB_ID" in os.environ
    return by_slurm or "TORCHELASTIC_RUN_ID" in os.environ or "SUBMITIT_EXECUTOR" in os.environ


# ---------------------------------------------------------------- stores and groups


def _agent_serves() -> bool:
    """Whether a parent that outlives the ranks hosts the store: torchrun's agent, or our own."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


@functools.cache
def job_store() -> dist.Store:
    """Keys and values that all processes of the job share, before there is a group."""
    return dist.PrefixStore("vissl_lite", _connect(launched_rank() == 0 and not _agent_serves()))


@functools.cache
def attempt_store(connection: str = "main") -> dist.Store:
    """Keys and values of this attempt alone.

    The keys of dead processes, the addresses of their sockets among them, are still in the store
    of torchrun's agent after a restart; a rank that reads one fails with "Connection refused".

    Args:
        connection: its name; a thread that must not wait for another one takes its own.
    """
    return dist.PrefixStore(_attempt(), _connect(serve=False))


def _connect(serve: bool) -> dist.TCPStore:
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(address, port, None, serve, PATIENCE, False)


_doors: list[dist.TCPStore] = []  # rank 0's stays open as long as the process lives


@functools.cache
def _attempt() -> str:
    """A name that all ranks of this attempt have, and none of an earlier one.

    Rank 0 opens a port and announces it in the job's store; the others look until they reach it.
    What they read behind it cannot be old.
    """
    store, address = job_store(), os.environ["MASTER_ADDR"]
    if launched_rank() == 0:
        _doors.append(dist.TCPStore(address, 0, None, True, PATIENCE, False))
        _doors[0].set("name", f"attempt-{time.time_ns()}")
        store.set("door", str(_doors[0].port))
        return _doors[0].get("name").decode()
    deadline = time.monotonic() + PATIENCE.total_seconds()
    while True:
        port = int(store.get("door"))
        try:  # a plain socket first: a TCPStore prints its failures
            socket.create_connection((address, port), timeout=1).close()
            door = dist.TCPStore(address, port, None, False, timedelta(seconds=5), False)
            return door.get("name").decode()
        except (OSError, dist.DistError):  # the door of a rank 0 that is gone
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def join_group(timeout_s: float, device: str) -> None:
    """Joins the process group that the launcher describes; does nothing for a single process.

    Args:
        timeout_s: a collective that takes longer, and `MARGIN_S` more, ends the process.
        device: that the user asks for; with "cpu" no GPU is touched.

    Raises:
        ConfigError: some ranks have not come; it names them.
    """
    if launched_world_size() == 1 or dist.is_initialized():
        return
    if choose_device(device).type == "cuda":
        torch.cuda.set_device(_own_gpu())
    _wait_for_all(attempt_store())
    dist.init_process_group(
        _backend(),
        store=attempt_store(),
        rank=launched_rank(),
        world_size=launched_world_size(),
        timeout=timedelta(seconds=timeout_s + MARGIN_S),
    )


def with_timeout_of_all(group: Any) -> dist.ProcessGroup:
    """A group of some ranks with the timeout of the first; else it has PyTorch's, 10 or 30 min."""
    first = cast(Any, dist.group.WORLD)._get_backend(torch.device("cpu"))
    older = dist.distributed_c10d._set_pg_timeout  # than torch 2.15, where this has a public name
    getattr(dist, "set_timeout", older)(first.options._timeout, group)
    return group


def _wait_for_all(store: dist.Store, patience: timedelta = PATIENCE) -> None:
    store.set(f"rank {launched_rank()} is here", "")
    keys = [f"rank {r} is here" for r in range(launched_world_size())]
    try:
        store.wait(keys, patience)
    except dist.DistStoreError:
        missing = [r for r, key in enumerate(keys) if not store.check([key])]
        raise ConfigError(
            f"launch: {name_ranks(missing)} of {len(keys)} did not come within"
            f" {patience.total_seconds():g} s; look at what they printed, and start all ranks with"
            " the same command"
        ) from None


def name_ranks(ranks: Sequence[int]) -> str:
    """[0, 2, 3, 4] is "ranks 0, 2-4"."""
    runs: list[list[int]] = []
    for r in sorted(ranks):
        if runs and runs[-1][-1] == r - 1:
            runs[-1][1:] = [r]
        else:
            runs.append([r])
    text = ", ".join("-".join(map(str, run)) for run in runs)
    return f"rank{'' if len(ranks) == 1 else 's'} {text}"


def join_single_group() -> None:
    """Makes a group of this process alone, for code that wants one; does nothing where one is."""
    if not dist.is_initialized():
        dist.init_process_group(_backend(), store=dist.HashStore(), rank=0, world_size=1)


def _backend() -> str:
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


def leave_group() -> None:
    """The last thing that a process does, once all work is done.

    Not after a failure where there are others: NCCL would wait for what they no longer do.
    """
    if dist.is_initialized():
        with suppress(RuntimeError):  # why they failed has been said
            dist.destroy_process_group()


def choose_device(name: str) -> torch.device:
    """The device of this process; 'auto' takes a GPU where there is one.

    Raises:
        ConfigError: 'cuda' is asked for on a machine without a usable GPU.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError(
            "device: cuda is asked for, but PyTorch finds no GPU here; set device=cpu, or"
            " device=auto to take whatever there is"
        )
    if name == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", _own_gpu())


def _own_gpu() -> int:
    """Index among the visible GPUs: those of the machine, or this rank's alone (gpus_per_task)."""
    return int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
