"""One command, several processes: small Python programs stand for the ranks, where they can."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from vissl_lite.errors import ConfigError
from vissl_lite.parallel import launch
from vissl_lite.parallel.launch import Launch, ProcessFailed, processes_to_start, run_processes
from vissl_lite.parallel.signals import caught
from vissl_lite.schema import conform

ROOT = str(Path(__file__).resolve().parents[2])
RANK = "import os, signal, sys, time; rank = int(os.environ['RANK']); "


def run(program, tmp_path, processes=2):
    return run_processes([sys.executable, "-c", RANK + program], processes, tmp_path / "logs")


# ---------------------------------------------------------------- how many


def test_one_process_without_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert processes_to_start(Launch(), "auto") == 1
    assert processes_to_start(Launch(processes=3), "auto") == 3


def test_one_process_per_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    assert processes_to_start(Launch(), "auto") == 8
    assert processes_to_start(Launch(processes=2), "cuda") == 2
    assert processes_to_start(Launch(), "cpu") == 1
    with pytest.raises(ConfigError, match="9 processes need a GPU each, 8 are visible"):
        processes_to_start(Launch(processes=9), "auto")


def test_none_where_a_launcher_has_started_them(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    monkeypatch.setenv("RANK", "0")
    assert processes_to_start(Launch(), "auto") == 1
    with pytest.raises(ConfigError, match="has started the processes already"):
        processes_to_start(Launch(processes=8), "auto")


def test_wrong_settings():
    _, problems = conform({"processes": 0, "timeout_s": 0.0}, Launch, "launch")
    assert problems == [
        "launch.processes: 0; needs 1 or more",
        "launch.timeout_s: 0; needs more than 0",
    ]


# ---------------------------------------------------------------- what ranks get


def test_ranks_get_what_torchrun_would_give(tmp_path):
    names = "('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR')"
    write = f"open('{tmp_path}/' + str(rank), 'w').write(' '.join(os.environ[n] for n in {names}))"
    assert run(write, tmp_path, processes=3) == 0
    found = [(tmp_path / str(rank)).read_text() for rank in range(3)]
    assert found == [f"{rank} {rank} 3 3 127.0.0.1" for rank in range(3)]


def test_rank_0_has_the_terminal_and_the_others_a_file(tmp_path, capfd):
    assert run("print('rank', rank)", tmp_path) == 0
    assert capfd.readouterr().out == "rank 0\n"
    assert (tmp_path / "logs" / "rank-1.txt").read_text() == "rank 1\n"


# ---------------------------------------------------------------- when one fails


def failure(program, tmp_path):
    with pytest.raises(ProcessFailed) as raised:
        run(program, tmp_path)
    return raised.value.code, str(raised.value)


def test_a_failing_rank_is_named_with_its_last_lines(tmp_path):
    program = "rank and ([print(i) for i in range(40)], sys.exit('the disk is full')); sys.exit(76)"
    code, message = failure(program, tmp_path)
    assert code == 1
    first, *lines = message.splitlines()
    assert first == (
        "rank 1 failed with exit code 1; all processes were ended; the end of"
        f" {tmp_path}/logs/rank-1.txt:"
    )
    assert sorted(lines) == sorted(["  | the disk is full", *(f"  | {i}" for i in range(26, 40))])


def test_a_killed_rank_is_named(tmp_path, capfd):
    program = "rank == 1 and os.kill(os.getpid(), signal.SIGKILL); time.sleep(0.3); sys.exit(76)"
    assert failure(program, tmp_path) == (
        128 + signal.SIGKILL,
        "rank 1 was killed by SIGKILL, often for lack of memory; all processes were ended",
    )


def test_what_one_rank_has_said_for_all_is_not_said_again(tmp_path):
    assert failure("sys.exit(2)", tmp_path) == (2, "")
    said = "rank and print('config error'); time.sleep(rank == 0); sys.exit(2)"
    assert failure(said, tmp_path) == (2, "config error")
    said = "rank and print('config error', flush=True); time.sleep(rank); sys.exit(2)"
    assert failure(said, tmp_path) == (2, "config error")  # though rank 0 was the first to end


def test_ranks_that_do_not_end_are_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "GRACE_S", 0.5)
    start = time.monotonic()
    code, message = failure("rank == 0 and sys.exit(3); time.sleep(60)", tmp_path)
    assert (code, message[:32]) == (3, "rank 0 failed with exit code 3; ")
    assert time.monotonic() - start < 20


# ---------------------------------------------------------------- signals

NOTE = """
got, folder = [], {folder!r}
signal.signal(signal.{name}, lambda number, frame: got.append(number))
open(folder + '/ready' + str(rank), 'w').close()
{first}
while not got: time.sleep(0.01)
open(folder + '/noted' + str(rank), 'w').close()
time.sleep({saving_s})
open(folder + '/saved' + str(rank), 'w').close()
sys.exit(128 + got[0])
"""


def noting(tmp_path, name, first="", saving_s=0.2):
    """A rank that does something first, waits for a signal, then takes its time to save."""
    return NOTE.format(folder=str(tmp_path), name=name, first=first, saving_s=saving_s)


@contextmanager
def started(tmp_path, program):
    """A command of two ranks in a process of its own, both ready."""
    code = f"""
import sys
from pathlib import Path
from vissl_lite.parallel.launch import run_processes
command = [sys.executable, "-c", {RANK + program!r}]
sys.exit(run_processes(command, 2, Path({str(tmp_path)!r}, "logs")))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True
    ) as command:
        wait_for(tmp_path / "ready0", tmp_path / "ready1")
        yield command
        command.kill()


def wait_for(*files, seconds=60):
    deadline = time.monotonic() + seconds
    while not all(file.exists() for file in files):
        assert time.monotonic() < deadline, files
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR2"])
def test_a_signal_reaches_every_rank_and_all_may_finish(tmp_path, name):
    with started(tmp_path, noting(tmp_path, name)) as command:
        command.send_signal(signal.Signals[name])
        _, err = command.communicate(timeout=30)
    assert (command.returncode, err) == (128 + signal.Signals[name], "")
    assert (tmp_path / "saved0").exists()
    assert (tmp_path / "saved1").exists()


def test_a_signal_reaches_a_rank_that_is_being_started(tmp_path, monkeypatch):
    team, start = launch.Team(tmp_path), subprocess.Popen

    def interrupted(*args, **options):
        member = start(*args, **options)
        team.note(signal.SIGTERM, None)
        return member

    monkeypatch.setattr(launch.subprocess, "Popen", interrupted)
    with team:
        team.start([sys.executable, "-c", "import time; time.sleep(60)"], dict(os.environ))
        assert team.wait() is None
        assert team.codes == [-signal.SIGTERM]


def test_the_second_ctrl_c_kills(tmp_path):
    with started(tmp_path, noting(tmp_path, "SIGINT", saving_s=60)) as command:
        command.send_signal(signal.SIGINT)
        wait_for(tmp_path / "noted0", tmp_path / "noted1")
        command.send_signal(signal.SIGINT)
        _, err = command.communicate(timeout=30)
    assert (command.returncode, err) == (128 + signal.SIGINT, "")
    assert not (tmp_path / "saved0").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_ranks_do_not_outlive_a_killed_command(tmp_path):
    ask = "from vissl_lite.parallel.launch import die_with_parent; die_with_parent()"
    with started(tmp_path, ask + noting(tmp_path, "SIGTERM")) as command:
        command.kill()
        wait_for(tmp_path / "saved0", tmp_path / "saved1")


def test_sigusr2_goes_on_to_the_handler_that_was_there_before(tmp_path):
    """submitit's, which puts the job back into the queue."""
    told = []
    when_ready = f"while not os.path.exists('{tmp_path}/ready1'): time.sleep(0.01)\n"
    first = when_ready + "rank or os.kill(os.getppid(), signal.SIGUSR2)"
    with caught([signal.SIGUSR2], lambda number, frame: told.append(number)):
        assert run(noting(tmp_path, "SIGUSR2", first), tmp_path) == 128 + signal.SIGUSR2
    assert told == [signal.SIGUSR2]


# ---------------------------------------------------------------- real training

SABOTEUR = '''
import os, signal, time
from vissl_lite import HOOKS
from vissl_lite.hooks.base import Hook
from vissl_lite.parallel.collectives import rank

@HOOKS.register("saboteur")
class Saboteur(Hook):
    """Raises on a rank after a step."""
    def __init__(self, rank: int = 1, step: int = 2):
        self.rank, self.step = rank, step
    def after_step(self, trainer):
        if (rank(), trainer.step) == (self.rank, self.step):
            raise ValueError("the disk of this node is full")
'''


@pytest.fixture
def plugins(tmp_path):
    """A folder with an installed plugin: a hook that fails."""
    info = tmp_path / "plugins" / "acme-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vissl_lite.plugins]\nacme = acme_parts\n")
    (tmp_path / "plugins" / "acme_parts.py").write_text(SABOTEUR)
    return tmp_path / "plugins"


def test_one_sentence_from_the_others_when_a_rank_fails(tmp_path, plugins):
    words = ["config=quickstart", "train.batch_size=16", "precision=fp32", "evaluations=[]"]
    words += ["memory.memory_format=contiguous", "hooks=[saboteur]", "loggers=[jsonl]"]
    done = subprocess.run(
        [sys.executable, "-m", "vissl_lite", *words, "train.log_every=1", "launch.processes=2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{plugins}{os.pathsep}{ROOT}"},
    )
    first, second, *lines = done.stderr.splitlines()
    cause = "ValueError: the disk of this node is full"
    assert first == f"rank 0 stops, because rank 1 failed with {cause}"
    ended = "rank 1 failed with exit code 1; all processes were ended; the end of"
    assert second.startswith(ended), done.stderr
    assert lines[-1] == f"  | {cause}"
    assert done.returncode == 1
    (metrics,) = tmp_path.glob("runs/quickstart/*/metrics.jsonl")
    start = json.loads(metrics.read_text().splitlines()[0])
    assert start["world_size"] == 2
