"""Who started this process, and what it agrees on with the others before there is a group."""

import multiprocessing
import os
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from distributed import FORKSERVER
from parallel.rank_programs import add_up

from vissl_lite.errors import ConfigError
from vissl_lite.parallel import process

LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def environ(monkeypatch):
    """An environment without any launcher, given back afterwards."""
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SUBMITIT", "TORCH"))
    }
    clean = {k: v for k, v in clean.items() if k not in LAUNCHERS}
    monkeypatch.setattr(os, "environ", clean)
    process.job_store.cache_clear()
    return clean


# ---------------------------------------------------------------- rank sources

SRUN = {
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
}


def test_srun(environ):
    environ |= SRUN
    process.adopt_launcher()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    assert [environ[n] for n in names] == ["9", "16", "1", "8", "gpu07"]
    assert 20000 <= int(environ["MASTER_PORT"]) <= 30000
    assert process.start_time() == "slurm-1234.0"
    assert process.may_restart()
    assert process.is_task_of_srun()


def test_all_ranks_of_srun_choose_one_port_and_other_steps_another(environ):
    ports = []
    for proc, step in (("0", "0"), ("15", "0"), ("0", "1")):
        environ |= SRUN | {"SLURM_PROCID": proc, "SLURM_STEP_ID": step}
        for name in LAUNCHERS:
            environ.pop(name, None)
        process.adopt_launcher()
        ports.append(environ["MASTER_PORT"])
    assert ports[0] == ports[1] != ports[2]


def test_torchrun_goes_before_slurm(environ):
    environ |= {**SRUN, "RANK": "3", "WORLD_SIZE": "4"}
    process.adopt_launcher()
    assert (process.launched_rank(), process.launched_world_size()) == (3, 4)
    assert not process.is_task_of_srun()
    assert "MASTER_ADDR" not in environ


@pytest.mark.parametrize("missing", ["SLURM_STEP_NUM_TASKS", None])
def test_a_batch_script_without_srun_and_a_single_task_are_no_launcher(environ, missing):
    environ |= SRUN | {"SLURM_NTASKS": "16", "SLURM_STEP_NUM_TASKS": "1"}
    environ.pop(missing, None)
    process.adopt_launcher()
    assert not process.is_launched()
    assert process.launched_world_size() == 1
    assert process.start_time() == time.strftime("%Y-%m-%d_%H-%M-%S")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node7", "node7"),
        ("a,b", "a"),
        ("gpu[007-010,12],cpu3", "gpu007"),
        ("r1-n[3,5]-ib,x", "r1-n3-ib"),
    ],
)
def test_first_host(nodes, first):
    assert process.first_host(nodes) == first


def test_ranks_in_words():
    assert process.name_ranks([4, 0, 2, 3]) == "ranks 0, 2-4"
    assert process.name_ranks([7]) == "rank 7"


# ---------------------------------------------------------------- stores


def ranks(environ, server, world, dies):
    """Starts the ranks of an attempt, whose store this process keeps as torchrun's agent does."""
    env = {
        **environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(server.port),
        "WORLD_SIZE": str(world),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RUN_ID": "none",
    }
    here, there = zip(*(FORKSERVER.Pipe() for _ in range(world)))
    children = [
        FORKSERVER.Process(target=add_up, args=({**env, "RANK": str(r)}, dies, there[r]))
        for r in range(world)
    ]
    for child in children:
        child.start()
    return children, here


def test_a_restart_forgets_the_sockets_of_the_dead_and_keeps_the_start_time(environ):
    server = dist.TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=60), False)
    answers = []
    for world, dies in ((2, True), (2, True), (1, False), (2, False)):
        children, connections = ranks(environ, server, world, dies)
        for child, connection in zip(children, connections):
            assert connection.poll(60)
            answers.append(connection.recv())
            child.join(60)
            assert child.exitcode == (9 if dies else 0)
    assert len({started for started, _ in answers}) == 1
    assert [total for _, total in answers] == [2, 2, 2, 2, 1, 2, 2]


def test_a_lost_start_time_is_an_error_and_no_new_run(environ):
    server = dist.TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=60), False)
    environ |= {
        "RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(server.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RUN_ID": "job",
        "TORCHELASTIC_RESTART_COUNT": "1",
    }
    with pytest.raises(ConfigError, match="go on with resume=FOLDER, and give run_dir=FOLDER"):
        process.start_time()


def test_ranks_that_do_not_come_are_named(environ):
    environ |= {"RANK": "1", "WORLD_SIZE": "6"}
    store = dist.HashStore()
    store.set("rank 4 is here", "")
    with pytest.raises(
        ConfigError, match=r"launch: ranks 0, 2-3, 5 of 6 did not come within 0.1 s"
    ):
        process._wait_for_all(store, timedelta(seconds=0.1))


# ---------------------------------------------------------------- a group of one


def _alone(answer):
    process.join_single_group()
    process.join_single_group()
    x = torch.full((2,), 3.0)
    dist.all_reduce(x)
    answer.send((dist.get_world_size(), x.tolist()))
    process.leave_group()


def test_a_group_of_one_process_needs_no_launcher():
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_alone, args=(there,))
    child.start()
    assert here.poll(60)
    assert here.recv() == (1, [3.0, 3.0])
    child.join()


def test_leaving_a_broken_group_says_nothing(monkeypatch):
    """The cause has been said; a traceback behind it would hide it."""

    def broken():
        raise dist.DistBackendError("connection closed by peer")

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "destroy_process_group", broken)
    process.leave_group()
