"""A trace that tools can read, of the steps that were asked for."""

import gzip
import json
from types import SimpleNamespace

import pytest
import torch

from vissl_lite import HOOKS, ConfigError
from vissl_lite.plugins import load_entries

load_entries()


def run(folder, length, **options):
    hook = HOOKS.build(options, "hooks.profiler")
    notes = []
    journal = SimpleNamespace(note=lambda text, level="info": notes.append((text, level)))
    trainer = SimpleNamespace(run_dir=folder, device=torch.device("cpu"), journal=journal)
    hook.on_start(trainer)
    for step in range(length):
        with torch.profiler.record_function(f"work in step {step}"):
            torch.randn(64, 64) @ torch.randn(64, 64)
        hook.after_step(trainer)
    hook.on_end(trainer)
    return notes


def recorded(folder):
    with gzip.open(folder / "trace" / "rank0.json.gz") as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    return [step for step in range(20) if f"work in step {step}" in names]


def test_records_the_steps_that_were_asked_for(tmp_path):
    notes = run(tmp_path, 12, start_step=3, steps=2)
    assert recorded(tmp_path) == [3, 4]
    assert "aten::mm" in (tmp_path / "trace" / "top.txt").read_text()
    [(text, level)] = notes
    assert str(tmp_path / "trace" / "rank0.json.gz") in text
    assert level == "info"


def test_a_run_that_ends_while_recording_keeps_what_there_is(tmp_path):
    notes = run(tmp_path, 4, start_step=2, steps=10)
    assert recorded(tmp_path) == [2, 3]
    assert len(notes) == 1


def test_a_run_that_ends_before_says_so(tmp_path):
    notes = run(tmp_path, 2, start_step=5, steps=3)
    assert notes == [("hooks.profiler: the run ended within 5 steps; nothing recorded", "warning")]
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("option", ["start_step", "steps"])
def test_nothing_below_one(option):
    with pytest.raises(ConfigError, match=rf"hooks\.profiler\.{option}: 0; needs 1 or more"):
        HOOKS.build({option: 0}, "hooks.profiler")
