import json
import math
from pathlib import Path

import pytest

from vissl_lite import ConfigError
from vissl_lite.report.runs import Run, card, number, told_apart

RECORDS = [
    {"kind": "start", "steps_per_epoch": 10, "total_steps": 40, "recipe": "quickstart"},
    {"kind": "train", "step": 5, "epoch": 0.5, "total_steps": 40, "loss": 2.0},
    {"kind": "eval", "step": 10, "name": "knn", "top1": 0.5},
    {"kind": "note", "level": "warning", "text": "slow"},
    {"kind": "note", "level": "warning", "text": "slow"},
    {"kind": "train", "step": 20, "epoch": 2.0, "total_steps": 40, "loss": "nan"},
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.yaml").write_text("# Composed by vissl_lite 0.1.0. Run it\ntrunk: {}\n")
    write(tmp_path, RECORDS)
    return tmp_path


def write(folder, records, end="\n"):
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)) + end)


def test_reads_back_what_a_run_wrote(folder):
    run = Run.read(folder)
    assert run.column("loss")[0] == (0.5, 2.0)
    assert math.isnan(run.column("loss")[1][1])
    assert run.evaluations() == {"knn": {"top1": [(1.0, 0.5)]}}
    assert run.measured() == ["loss"]
    assert run.warnings == ["slow"]
    assert run.versions == {"vissl_lite": "0.1.0"}
    assert (run.recipe, run.checkpoint, run.words) == ("quickstart", None, [])


def test_how_far_it_is(folder):
    assert Run.read(folder).state == "at step 20 of 40, not ended"
    resumed = [*RECORDS, {"kind": "end", "reason": "stopped by SIGTERM"}]
    write(folder, resumed)
    assert Run.read(folder).state == "stopped by SIGTERM"
    write(folder, [*resumed, RECORDS[0], {**RECORDS[1], "step": 40}])
    assert Run.read(folder).state == "done"  # the hook asks before the last record


def test_a_line_that_is_being_written_is_left_out_and_a_damaged_one_is_said(folder):
    write(folder, RECORDS, end='\n{"kind": "tr')
    assert len(Run.read(folder).records) == len(RECORDS)
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text("broken\n" + text)
    with pytest.raises(ConfigError, match=r"line 1 of .*metrics\.jsonl is damaged"):
        Run.read(folder)


def test_a_folder_that_is_no_run(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"is no run, it has no config\.yaml; give the folder"):
        Run.read(tmp_path / "other")


def test_names_differ_as_far_as_folders_do():
    runs = [Run(Path(name), {}, []) for name in ("/r/simclr/1", "/r/swav/1", "/r/swav/2")]
    assert [run.name for run in told_apart(runs)] == ["simclr/1", "swav/1", "swav/2"]
    assert [run.name for run in told_apart([Run(Path("/r/swav/1"), {}, [])])] == ["1"]


def test_cards_and_numbers():
    assert card("quickstart").startswith("SimCLR, small ResNet-18")
    assert card("no/such") == ""
    assert number("-inf") == -math.inf
    assert math.isnan(number(None))
