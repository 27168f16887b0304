"""What the records of a run say of its end."""

import json

import pytest

from vissl_lite.suite.live import has_ended, steps_per_epoch

START, END = {"kind": "start", "steps_per_epoch": 7}, {"kind": "end", "reason": "done"}
TRAIN, NOTE = {"kind": "train", "step": 1}, {"kind": "note", "text": '"kind": "end"'}


@pytest.mark.parametrize(
    ("records", "ended"),
    [
        ([], False),
        ([START, TRAIN], False),
        ([START, TRAIN, NOTE], False),
        ([START, TRAIN, END], True),
        ([START, END, START, TRAIN], False),  # resumed
        ([START, END, START, TRAIN, END], True),
    ],
)
def test_ended(tmp_path, records, ended):
    (tmp_path / "config.yaml").write_text("loggers: {console: {}, jsonl: {}}\n")
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert has_ended(tmp_path) is ended
    assert steps_per_epoch(tmp_path) == (7 if records else None)


def test_the_line_being_written_does_not_count(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(START) + "\n" + json.dumps(END))
    assert not has_ended(tmp_path)


def test_a_run_without_records_cannot_tell(tmp_path):
    (tmp_path / "config.yaml").write_text("loggers: {console: {}}\n")
    assert has_ended(tmp_path)
    assert steps_per_epoch(tmp_path) is None
