import json
import math
from pathlib import Path

import pytest

from vissl_lite import LOGGERS
from vissl_lite.loggers.jsonl import JSONL


def write(folder: Path, steps) -> JSONL:
    log = JSONL(run_dir=folder)
    for step in steps:
        log.log({"kind": "train", "step": step, "loss": 1.0 / step})
    return log


def read(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_each_record_is_one_line_at_once(tmp_path):
    log = LOGGERS.build("jsonl", run_dir=tmp_path / "new" / "folder")
    log.log({"kind": "start", "recipe": "é\nü", "resumed_step": 0})
    log.log({"kind": "train", "step": 1, "loss": 0.5})
    assert read(tmp_path / "new" / "folder") == [
        {"kind": "start", "recipe": "é\nü", "resumed_step": 0},
        {"kind": "train", "step": 1, "loss": 0.5},
    ]
    log.close()


def test_numbers_that_are_not_finite_are_strings_that_float_reads(tmp_path):
    log = write(tmp_path, [])
    log.log({"kind": "train", "step": 1, "loss": math.nan, "more": [math.inf, -math.inf, 1.5]})
    (record,) = read(tmp_path)
    assert record["loss"] == "nan"
    assert [float(x) for x in record["more"]] == [math.inf, -math.inf, 1.5]
    log.close()


def test_a_second_run_appends(tmp_path):
    write(tmp_path, [1, 2]).close()
    write(tmp_path, [3]).close()
    assert [record["step"] for record in read(tmp_path)] == [1, 2, 3]


def test_rewind_drops_what_came_after_the_step(tmp_path):
    log = write(tmp_path, [1, 2])
    log.log({"kind": "note", "text": "no step", "level": "info"})
    log.close()
    write(tmp_path, [3, 4]).close()
    log = JSONL(run_dir=tmp_path)
    log.rewind(2)
    log.log({"kind": "train", "step": 3, "loss": 9.0})
    log.close()
    assert [record.get("step") for record in read(tmp_path)] == [1, 2, None, 3]
    assert read(tmp_path)[-1]["loss"] == 9.0


@pytest.mark.parametrize("torn", ['{"kind": "tra', "{"])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    write(tmp_path, [1, 2]).close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    write(tmp_path, [3]).close()
    assert [record["step"] for record in read(tmp_path)] == [1, 2, 3]


def test_a_full_disk_costs_records_and_nothing_else(small_disk, capfd):
    """Warned of once; written again when there is room; what is lacking is said at the end."""
    folder = small_disk("8k")  # two pages
    log, ballast = write(folder, [1]), folder / "other"
    ballast.write_bytes(bytes(4096))
    long = {"kind": "note", "text": "x" * 1500, "level": "info"}
    for step in (2, 3, 4, 5):
        log.log({**long, "step": step})  # the third one fits in part
    assert capfd.readouterr().err == (
        f"warning: {folder}/metrics.jsonl cannot be written (No space left on device);"
        " training goes on\n"
    )
    ballast.unlink()
    log.log({**long, "step": 6})
    log.close()
    assert [record["step"] for record in read(folder)] == [1, 2, 3, 6]
    assert "lacks 2 records" in capfd.readouterr().err


def test_a_name_that_is_no_unicode_is_written(tmp_path):
    log = write(tmp_path, [])
    log.log({"kind": "note", "text": "broken image bad\udcff.jpg", "level": "warning"})
    assert read(tmp_path)[0]["text"] == "broken image bad\udcff.jpg"
    log.close()
