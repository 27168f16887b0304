import sys

import pytest

from vissl_lite import ConfigError
from vissl_lite.loggers.tensorboard import TensorBoard


def read(folder, tag):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)]


def test_numbers_by_tag_and_step(tmp_path):
    log = TensorBoard(run_dir=tmp_path)
    log.log({"kind": "start", "recipe": "x", "total_steps": 5})
    log.log({"kind": "train", "step": 1, "total_steps": 5, "loss": 0.5, "lr": 0.1})
    log.log({"kind": "train", "step": 2, "total_steps": 5, "loss": 0.25, "lr": 0.1})
    log.log({"kind": "eval", "step": 2, "name": "knn", "top1": 63.2})
    log.log({"kind": "note", "text": "hello", "level": "info"})
    log.close()
    assert read(tmp_path, "train/loss") == [(1, 0.5), (2, 0.25)]
    assert read(tmp_path, "eval/knn/top1") == [(2, 63.2)]


def test_rewind_hides_later_steps(tmp_path):
    log = TensorBoard(run_dir=tmp_path)
    for step in (1, 2, 3):
        log.log({"kind": "train", "step": step, "loss": 1.0})
    log.rewind(1)
    log.log({"kind": "train", "step": 2, "loss": 7.0})
    log.close()
    assert read(tmp_path, "train/loss") == [(1, 1.0), (2, 7.0)]


def test_says_when_it_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        ConfigError, match=r"loggers\.tensorboard: .* run 'pip install tensorboard'"
    ):
        TensorBoard(run_dir=tmp_path)
