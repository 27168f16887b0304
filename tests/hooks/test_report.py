"""The hook: a page at the end, and never a failed training."""

import signal

from training import SMALL, composed, records, small

from vissl_lite.engine.journal import save_config
from vissl_lite.engine.trainer import Trainer
from vissl_lite.report import maps, report
from vissl_lite.schema import plain

WORDS = (
    "++train.max_steps=2",
    "hooks=[checkpoint,report]",
    "++data.source={name: digits, split: test}",
)


def trained(folder, *words, before=lambda trainer: None):
    tree = plain(composed(*SMALL, *WORDS, *words))
    save_config({key: value for key, value in tree.items() if key != "hydra"}, folder)
    trainer = Trainer(small(*WORDS, *words), folder)
    before(trainer)
    trainer.fit()
    return trainer


def test_writes_the_page_after_the_last_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(maps, "POINTS", 60)
    trained(tmp_path / "a")
    text = (tmp_path / "a" / "report.html").read_text()
    assert "Run a: done." in text
    assert "Views</h2>" in text
    assert "Nearest neighbours</h2>" in text
    assert records(tmp_path / "a", "note")[-1]["text"] == f"report: {tmp_path}/a/report.html"


def test_a_failure_is_a_warning(tmp_path, monkeypatch):
    def fail(run):
        raise OSError("disk is full")

    monkeypatch.setattr(report, "about", fail)
    trainer = trained(tmp_path)
    assert trainer.step == 2
    [note] = [n for n in records(tmp_path, "note") if n["level"] == "warning"]
    assert note["text"].startswith("report: OSError: disk is full; it can be made again with")
    assert records(tmp_path, "end")[0]["reason"] == "done"


def test_after_a_signal_there_are_only_curves(tmp_path):
    def received(trainer):
        trainer.stop.received = signal.SIGTERM

    trained(tmp_path, before=received)
    text = (tmp_path / "report.html").read_text()
    assert "Training</h2>" in text
    assert "Views</h2>" not in text
