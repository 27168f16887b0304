"""One command, one process per GPU of this machine."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.distributed as dist

from vissl_lite.errors import ConfigError
from vissl_lite.parallel.process import is_launched
from vissl_lite.parallel.signals import STOPS, caught, more_telling, pass_on
from vissl_lite.parallel.watchdog import EXIT_OTHER_RANK, EXIT_STUCK
from vissl_lite.schema import above, at_least

EXIT_CONFIG = 2
FOR_ALL = {EXIT_CONFIG: "config error", EXIT_STUCK: "the run stands still"}  # begins what one says
GRACE_S = 30.0  # for the others to save and end after one process has failed
SHOWN_LINES = 15
FROM_PARENT = "VISSL_LITE_PARENT"


@dataclass
class Launch:
    """How a run is started; no part of what is trained, hence not saved with it."""

    processes: Annotated[int | Literal["auto"], at_least(1)] = (
        "auto"  # on this machine; auto: one per GPU, else one
    )
    timeout_s: Annotated[float, above(0)] = (
        1800.0  # a run in which nothing moves for so long is ended
    )


class ProcessFailed(RuntimeError):
    """A process of the run failed; the message is for the user, "" if everything is said.

    Attributes:
        code: exit code of the command.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message, code)
        self.message, self.code = message, code

    def __str__(self) -> str:
        return self.message


def processes_to_start(launch: Launch, device: str) -> int:
    """How many processes this command starts; 1: it is the only one, or a launcher started it.

    Raises:
        ConfigError: more processes than GPUs, or a number although a launcher has started some.
    """
    if is_launched():
        if launch.processes not in ("auto", 1):
            raise ConfigError(
                "launch.processes: torchrun or srun has started the processes already; give the"
                " number to it"
            )
        return 1
    gpus = 0 if device == "cpu" else torch.cuda.device_count()
    wanted = max(gpus, 1) if launch.processes == "auto" else launch.processes
    if gpus and wanted > gpus:
        raise ConfigError(
            f"launch.processes: {wanted} processes need a GPU each, {gpus} are visible here; lower"
            " it, or set device=cpu"
        )
    return wanted


def run_processes(command: Sequence[str], processes: int, logs: Path) -> int:
    """Runs `command` once per rank; returns 0, or 128 + n after signal n was passed on to all.

    Rank 0 keeps the terminal; what the others print goes to `logs/rank-K.txt`. SIGINT, SIGTERM,
    SIGHUP, SIGUSR1 and SIGUSR2 go to every rank once, a second SIGINT kills them. When one fails,
    the others get some seconds to end, then they are killed.

    Raises:
        ProcessFailed: which rank failed first, how, and the last lines that it printed.
    """
    store = dist.TCPStore("127.0.0.1", 0, None, True, timedelta(minutes=10), False)
    logs.mkdir(parents=True, exist_ok=True)
    with Team(logs) as team, caught(STOPS, team.note):
        for rank in range(processes):
            team.start(command, environment(rank, processes, store.port))
        failed = team.wait()
    if failed is not None and not team.killed:
        code = team.codes[failed] or 0
        told = said_for_all(code, processes, logs) or obituary(failed, code, logs)
        raise ProcessFailed(told, shell_code(code))
    if team.received is None:
        return 0
    pass_on(team.received)
    return 128 + team.received


def environment(rank: int, processes: int, port: int) -> dict[str, str]:
    """What torchrun would set; the store lives in this process, which outlives the ranks."""
    package = str(Path(__file__).resolve().parents[2])
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    defaults = {"OMP_NUM_THREADS": str(threads), "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return {
        **defaults,
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        FROM_PARENT: str(os.getpid()),
    }


class Team:
    """The processes of a run.

    Attributes:
        codes: exit code by rank, None while it runs.
        received: the signal that was passed on to all, if any.
        killed: whether a second Ctrl-C has ended everything.
    """

    def __init__(self, logs: Path):
        self.logs, self.received, self.killed = logs, None, False
        self.files = ExitStack()
        self.members: list[subprocess.Popen] = []
        self.told = 0  # members that the last signal was sent to
        self.codes: list[int | None] = []

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.files.close()

    def start(self, command: Sequence[str], env: dict[str, str]) -> None:
        """Starts the next rank, in a session of its own: Ctrl-C reaches it through us, once."""
        rank, streams = len(self.members), {}
        if rank:
            out = self.files.enter_context(log_of(rank, self.logs).open("wb"))
            streams = {"stdout": out, "stderr": subprocess.STDOUT}
        self.members.append(subprocess.Popen(command, env=env, start_new_session=True, **streams))
        self.codes.append(None)
        if self.received is not None and rank >= self.told:  # it came while this one was starting
            self.members[rank].send_signal(self.received)

    def note(self, number: int, frame: object) -> None:
        """Passes a signal on; the second SIGINT kills."""
        again = self.received is not None and number == signal.SIGINT
        self.killed |= again
        self.received = more_telling(self.received, number)
        for member in self.members:
            if member.poll() is None:
                member.send_signal(signal.SIGKILL if again else number)
        self.told = len(self.members)

    def wait(self) -> int | None:
        """Waits for all; returns the rank whose failure made the others fail, None without one."""
        failed, deadline = None, float("inf")
        while None in self.codes:
            time.sleep(0.05)
            self.codes = [member.poll() for member in self.members]
            if failed is None or self.codes[failed] == EXIT_OTHER_RANK:
                failed = first_failure(self.codes, self.received)
            if failed is not None:
                deadline = min(deadline, time.monotonic() + GRACE_S)
            if time.monotonic() > deadline:
                break
        return failed

    def kill(self) -> None:
        for member in self.members:
            if member.poll() is None:
                member.kill()
                member.wait()


def first_failure(codes: Sequence[int | None], received: signal.Signals | None) -> int | None:
    """The rank to blame: one that was killed, before one that raised, before one that lost it.

    To end with the code of a signal, when one has been passed on to all, is no failure.
    """
    asked = [code for s in STOPS for code in (128 + s, -s)] if received else []
    failed = {r: code for r, code in enumerate(codes) if code and code not in asked}
    return min(failed, key=lambda r: (failed[r] == EXIT_OTHER_RANK, failed[r] > 0, r), default=None)


def said_for_all(code: int, processes: int, logs: Path) -> str:
    """What one rank, whichever was first, has said for all; "" where rank 0 has, on the screen."""
    for rank in range(1, processes) if code in FOR_ALL else ():
        text = log_of(rank, logs).read_text(errors="replace")
        _, begins, rest = f"\n{text}".rpartition(f"\n{FOR_ALL[code]}")
        if begins:
            return f"{FOR_ALL[code]}{rest.rstrip()}"
    return ""


def obituary(rank: int, code: int, logs: Path) -> str:
    """Which rank failed, how, and its last lines; "" where all is on the screen already."""
    if code < 0:
        name = signal.Signals(-code).name
        memory = ", often for lack of memory" if -code == signal.SIGKILL else ""
        return f"rank {rank} was killed by {name}{memory}; all processes were ended"
    lines = log_of(rank, logs).read_text(errors="replace").splitlines() if rank else []
    if code in FOR_ALL:
        return "\n".join(lines)
    if not rank:
        return f"rank 0 failed with exit code {code}; its error is above; all processes were ended"
    tail = "".join(f"\n  | {line}" for line in lines[-SHOWN_LINES:])
    return (
        f"rank {rank} failed with exit code {code}; all processes were ended; the end of"
        f" {log_of(rank, logs)}:{tail}"
    )


def log_of(rank: int, logs: Path) -> Path:
    """What a rank other than 0 prints."""
    return logs / f"rank-{rank}.txt"


def shell_code(code: int) -> int:
    """As shells count: 128 + n after signal n."""
    return 128 - code if code < 0 else code


def die_with_parent() -> None:
    """Asks Linux for a SIGTERM when the command that started this rank is killed."""
    if sys.platform == "linux" and FROM_PARENT in os.environ:
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != int(os.environ[FROM_PARENT]):
            sys.exit(128 + signal.SIGTERM)
