"""Ranks that fail, and what the others say."""

from pathlib import Path

import pytest
import torch.distributed as dist

from vissl_lite import cli
from vissl_lite.errors import ConfigError
from vissl_lite.parallel import failure
from vissl_lite.parallel.failure import (
    epitaph,
    is_communication,
    leave_note,
    say_once,
    shared_failure,
    told_to_others,
)
from vissl_lite.parallel.launch import Launch


@pytest.fixture
def store(monkeypatch):
    """Of the attempt; this process is rank 2 of 4."""
    shared = dist.HashStore()
    monkeypatch.setattr(failure, "attempt_store", lambda: shared)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setattr(failure, "GRACE_S", 0.1)
    return shared


def test_each_sentence_is_said_once(store):
    assert [say_once("a"), say_once("b"), say_once("a")] == [True, True, False]


def test_the_others_name_the_first_that_failed(store, monkeypatch):
    leave_note(ValueError("the disk is full\nat /data"))
    leave_note(KeyError("later"))
    monkeypatch.setenv("RANK", "0")
    lost = RuntimeError("[/x/gloo/pair.cc:561] Connection closed by peer [127.0.0.1]:9. GLHF!")
    assert epitaph(lost) == "rank 0 stops, because rank 2 failed with ValueError: the disk is full"


def test_a_training_that_fails_tells_the_others_whoever_catches_it(store):
    """As submitit's and Hydra's launchers do; what another rank's end causes is no failure."""
    with pytest.raises(ConfigError, match="did you mean 'seed'"):
        cli.train({"sed": 1}, Path("run"), Launch())
    assert store.get("failed").decode().startswith("rank 2 failed with ConfigError: unknown key")


def test_what_another_rank_causes_is_not_told(store):
    with pytest.raises(RuntimeError, match="Connection closed"), told_to_others():
        raise RuntimeError("Connection closed by peer")
    assert not store.check(["failed"])


def test_a_rank_that_was_killed_leaves_no_note(store):
    lost = RuntimeError("[/x/gloo/pair.cc:561] Connection closed by peer [127.0.0.1]:9. GLHF!")
    assert epitaph(lost) == (
        "rank 2 stops: it lost the connection to another rank, which was killed or cut off from"
        " the network (Connection closed by peer [127.0.0.1]:9)"
    )


def test_a_rank_that_fails_while_others_do_not_come_raises(store, monkeypatch):
    monkeypatch.setattr(failure, "TOGETHER_S", 0.0)
    error = ConfigError("knn.k: too large")
    with pytest.raises(ConfigError, match="too large"):
        shared_failure(error, "knn of step 3")
    store.add("at the end of knn of step 4", 3)
    assert shared_failure(error, "knn of step 4") is error
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert shared_failure(error, "knn of step 5") is error
    assert shared_failure(None, "knn of step 6") is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("[/x/gloo/pair.cc:545] Read error: Connection reset by peer"), True),
        (RuntimeError("NCCL communicator was aborted on rank 1"), True),
        (dist.DistStoreError("wait timeout after 2000ms"), True),
        (dist.DistBackendError("NCCL error in: x.cpp:94, ncclRemoteError: the other side"), True),
        (
            dist.DistBackendError(
                "NCCL error in: x.cpp:94, unhandled cuda error\nncclUnhandledCudaError: Call to"
                " CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'"
            ),
            False,
        ),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("gloo is a nice word"), False),
    ],
)
def test_whose_error_it_is(store, error, expected):
    assert is_communication(error) is expected


def test_alone_nothing_is_communication(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not is_communication(dist.DistStoreError("wait timeout"))
    assert say_once("anything")
    assert say_once("anything")
