"""A checkpoint is whole or not there; the newest whole one is found; nothing is unpickled."""

import json
import os
import pickle
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from training import small, trained

from vissl_lite.engine import checkpoint
from vissl_lite.engine.checkpoint import Checkpointer
from vissl_lite.engine.tensor_files import read_tensors
from vissl_lite.engine.trainer import Trainer
from vissl_lite.errors import ConfigError, SaveFailed

TENSORS, STATE = {"weight": torch.arange(3.0)}, {"step": 3}


def test_round_trip(tmp_path):
    keeper = Checkpointer(tmp_path)
    keeper.save(3, TENSORS, STATE, {"queue": torch.ones(2)})
    shared, own = checkpoint.load(keeper.latest())
    read_tensors(keeper.latest(), back := {"weight": torch.zeros(3)})
    assert shared == STATE
    assert torch.equal(back["weight"], TENSORS["weight"])
    assert torch.equal(own["queue"], torch.ones(2))


def test_the_newest_complete_one_is_found_whatever_a_kill_left_behind(tmp_path):
    """VISSL looked at phase or iteration files by the config, and built the path <dir>/None."""
    keeper = Checkpointer(tmp_path)
    assert keeper.latest() is None
    for step in (5, 20, 100):
        keeper.save(step, TENSORS, STATE, {})
    (tmp_path / "step-00000200.tmp").mkdir()  # killed while writing
    (tmp_path / "step-00000200.tmp" / "state.pt").write_bytes(b"half")
    (tmp_path / "step-00000150").mkdir()  # killed while being removed
    assert keeper.latest().name == "step-00000100"
    assert "step-00000150 is passed over: meta.json is missing" in keeper.damaged()[0]
    keeper.save(300, TENSORS, STATE, {})
    keeper.prune(keep_last=2, best=None)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["step-00000100", "step-00000300"]


@pytest.mark.parametrize(("size", "said"), [(5, "has 5 of"), (None, "is missing")])
def test_a_checkpoint_with_a_damaged_shard_is_passed_over_for_the_one_before(tmp_path, size, said):
    keeper = Checkpointer(tmp_path)
    for step in (1, 2):
        keeper.save(step, TENSORS, STATE, {})
    (shard,) = keeper.latest().glob("shard-*")
    os.truncate(shard, size) if size else shard.unlink()
    assert keeper.latest().name == "step-00000001"
    assert f"{shard.name} {said}" in keeper.damaged()[0]
    keeper.save(2, TENSORS, STATE, {})  # the damaged one does not stand in its way
    assert keeper.latest().name == "step-00000002"


@pytest.mark.parametrize("text", ["", '{"step": 2}', "[]", '{"files": null}', "\0" * 9])
def test_a_checkpoint_with_a_damaged_list_of_files_is_passed_over_too(tmp_path, text):
    """A machine that loses power may leave a file empty, or full of zeros."""
    keeper = Checkpointer(tmp_path)
    for step in (1, 2):
        keeper.save(step, TENSORS, STATE, {})
    (keeper.latest() / "meta.json").write_text(text)
    assert keeper.latest().name == "step-00000001"
    assert "step-00000002 is passed over: meta.json cannot be read" in keeper.damaged()[0]


def test_in_the_background_it_is_written_as_it_was(tmp_path):
    keeper, done = Checkpointer(tmp_path, background=True), []
    tensors = {"weight": torch.arange(1e6)}
    keeper.save(1, tensors, STATE, {}, done.append)
    tensors["weight"].zero_()
    keeper.wait()
    assert done == [keeper.latest()]
    read_tensors(keeper.latest(), back := {"weight": torch.zeros(1_000_000)})
    assert torch.equal(back["weight"], torch.arange(1e6))


@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_is_said_and_leaves_the_checkpoints_before_it(tmp_path, background):
    keeper = Checkpointer(tmp_path / "run", background)
    keeper.save(1, TENSORS, STATE, {})
    keeper.wait()
    with disk_full(), pytest.raises(SaveFailed, match="No space left on device"):
        save_and_wait(keeper, 2)
    assert keeper.latest().name == "step-00000001"
    keeper.save(3, TENSORS, STATE, {})
    keeper.wait()
    assert keeper.latest().name == "step-00000003"


def save_and_wait(keeper, step):
    keeper.save(step, TENSORS, STATE, {})
    keeper.wait()


@contextmanager
def disk_full():
    """A file system may take bytes and say only at the sync that there is no room for them."""
    with patch("os.fsync", side_effect=OSError(28, "No space left on device")):
        yield


def fails_on_rank_1(rank, world, folder, background):
    """What each rank hears of it when rank 1 has no room."""
    keeper = Checkpointer(Path(folder), background)
    room = patch("vissl_lite.engine.checkpoint.write", side_effect=OSError(28, "No space left"))
    with room if rank == 1 else nullcontext(), pytest.raises(SaveFailed) as raised:
        save_and_wait(keeper, 2)
    return str(raised.value)


@pytest.mark.parametrize("background", [False, True])
def test_all_ranks_hear_which_one_could_not_write_and_why(tmp_path, ranks, background):
    said = ranks(2)(fails_on_rank_1, str(tmp_path), background)
    assert said == ["checkpoint: rank 1: OSError: [Errno 28] No space left"] * 2


def fails_at_the_end(rank, world, folder):
    keeper = Checkpointer(Path(folder), background=True)
    broken = patch.object(Checkpointer, "_complete", side_effect=OSError(5, "Input/output error"))
    with broken, pytest.raises(SaveFailed) as raised:
        save_and_wait(keeper, 2)
    return str(raised.value)


def test_all_ranks_hear_of_what_failed_in_the_background(tmp_path, ranks):
    said = ranks(2)(fails_at_the_end, str(tmp_path))
    assert said == ["checkpoint: rank 0: OSError: [Errno 5] Input/output error"] * 2


def test_pruning_keeps_the_best(tmp_path):
    keeper = Checkpointer(tmp_path)
    for step in (1, 2, 3, 4):
        path = keeper.save(step, TENSORS, STATE, {})
        if step == 2:
            keeper.mark_best(path)
    keeper.prune(keep_last=1, best=keeper.best())
    assert [p.name for p in keeper.complete()] == ["step-00000002", "step-00000004"]
    assert (tmp_path / "best").resolve().name == "step-00000002"


def test_a_step_is_never_written_twice(tmp_path):
    keeper = Checkpointer(tmp_path)
    first = keeper.save(3, TENSORS, STATE, {})
    before = (first / "state.pt").stat().st_mtime_ns
    keeper.save(3, TENSORS, {"other": 1}, {})
    assert (first / "state.pt").stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["truncated", "missing", "empty"])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path, damage):
    path = Checkpointer(tmp_path).save(3, TENSORS, STATE, {})
    file = path / "state.pt"
    if damage == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"state\.pt cannot be read .*remove this checkpoint"):
        checkpoint.load(path)


def test_nothing_is_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    path = Checkpointer(tmp_path).save(3, TENSORS, STATE, {})
    (path / "state.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(ConfigError, match="cannot be read"):
        checkpoint.load(path)
    assert not (tmp_path / "ran").exists()


def queues(rank, world, run_dir, resume):
    """The queue of each rank after two steps, or as it is when the run is resumed."""
    heads = "++heads=[{name: mlp, hidden: [32], out_dim: 16}, {name: prototypes}]"
    words = ["loss=swav", "++loss.queue_length=32", heads, "hooks=[checkpoint]"]
    config = small(*words, "++train.max_steps=2", f"++resume={str(resume).lower()}")
    if resume:
        return Trainer(config, Path(run_dir)).loss.queue.rows_AQD
    return trained(config, Path(run_dir)).loss.queue.rows_AQD


def test_each_rank_gets_its_own_queue_back(tmp_path, ranks):
    """VISSL gave every rank the queue of rank 0."""
    before = ranks(2)(queues, str(tmp_path), False)
    after = ranks(2)(queues, str(tmp_path), True)
    assert not torch.equal(before[0], before[1])
    assert all(torch.equal(b, a) for b, a in zip(before, after))


def test_a_finished_run_says_so_when_it_is_resumed(tmp_path):
    """VISSL exited with success when it found the last checkpoint, whatever was asked for."""
    trained(small("++train.max_steps=2", "hooks=[checkpoint]"), tmp_path)
    again = trained(small("++train.max_steps=4", "hooks=[checkpoint]", "++resume=true"), tmp_path)
    assert again.step == 4
    meta = json.loads((again.checkpointer.latest() / "meta.json").read_text())
    assert meta["step"] == 4
