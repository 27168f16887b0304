"""With a stand-in for the package; the last test uses the package itself, offline, if installed."""

import os
import sys
from types import SimpleNamespace

import pytest

from vissl_lite import ConfigError
from vissl_lite.loggers.wandb import WandB


class Run:
    def __init__(self):
        self.logged, self.finished = [], False
        self.config = SimpleNamespace(update=lambda config, **_: setattr(self, "seen", config))

    def define_metric(self, name, step_metric):
        self.metric = (name, step_metric)

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.finished = True


@pytest.fixture
def calls(monkeypatch) -> list[dict]:
    """The keywords of every wandb.init; `settings` as a dict."""
    made = []

    def init(**keywords):
        made.append(keywords)
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=dict))
    return made


def test_records_go_to_the_run(tmp_path, calls):
    log = WandB(run_dir=tmp_path)
    log.log({"kind": "start", "recipe": "swav", "epochs": 3})
    log.log({"kind": "train", "step": 5, "total_steps": 9, "loss": 0.5})
    log.log({"kind": "eval", "step": 5, "name": "knn", "top1": 60.0})
    log.log({"kind": "note", "text": "hello", "level": "info"})
    log.close()
    assert log.run.seen == {"recipe": "swav", "epochs": 3}
    assert log.run.logged == [{"train/loss": 0.5, "step": 5}, {"eval/knn/top1": 60.0, "step": 5}]
    assert log.run.metric == ("*", "step")
    assert log.run.finished


def test_a_resumed_run_has_the_same_id_and_another_folder_another(tmp_path, calls):
    for folder in ("a", "a", "b"):
        WandB(run_dir=tmp_path / folder)
    ids = [call["id"] for call in calls]
    assert ids[0] == ids[1] != ids[2]
    assert all(call["resume"] == "allow" for call in calls)


def test_says_when_it_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"loggers\.wandb: .* run 'pip install wandb'"):
        WandB(run_dir=tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_package_itself_offline_writes_no_environment(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("SOME_TOKEN", "hunter2secret")
    log = WandB(mode="offline", run_dir=tmp_path)
    log.log({"kind": "start", "recipe": "swav-canary"})
    log.log({"kind": "train", "step": 1, "loss": 0.5})
    log.close()
    files = [p for p in (tmp_path / "wandb").rglob("*") if p.is_file() and not p.is_symlink()]
    content = b"".join(p.read_bytes() for p in files)
    assert b"swav-canary" in content
    assert b"hunter2secret" not in content
    assert os.fsencode(sys.executable) not in content
