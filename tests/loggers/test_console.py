import io
import re

import pytest

from vissl_lite import LOGGERS
from vissl_lite.loggers import _format as fmt
from vissl_lite.loggers import console
from vissl_lite.loggers.console import Console

START = {
    "kind": "start", "recipe": "pretrain/swav/resnet50", "run_dir": "runs/x",
    "device": "NVIDIA H100", "precision": "bf16", "world_size": 8, "epochs": 100,
    "total_steps": 31200,
    "steps_per_epoch": 312, "global_batch": 4096, "params": 28_353_472, "resumed_step": 250,
}  # fmt: skip


def train(step: int) -> dict:
    return {
        "kind": "train", "step": step, "epoch": step / 312, "total_steps": 31200, "loss": 6.1234,
        "lr": 0.0012346, "images_per_s": 12345.6, "data_wait": 0.021, "memory_gb": 31.23,
        "eta_s": 4321.0, "entropy": 7.5,
    }  # fmt: skip


def show(capsys, *records, **config) -> list[str]:
    log = Console(style="lines", **config)
    for record in records:
        log.log(record)
    log.close()
    return capsys.readouterr().out.splitlines()


def test_introduction(capsys):
    assert show(capsys, START) == [
        "pretrain/swav/resnet50",
        "  runs/x",
        "  8 processes, NVIDIA H100, bf16, 28.4 M parameters",
        "  31,200 steps of 4,096 images (100 epochs of 312 steps)",
        "  resumed at step 250",
    ]


def test_a_training_line(capsys):
    assert show(capsys, START, train(1248))[-1] == (
        "epoch   4.00/100  step  1,248/31,200  loss  6.123  lr  0.001235   12,346 images/s"
        "  data wait   2 %   31.2 GB  entropy 7.500  ETA 1:12:01"
    )


def test_lines_come_first_last_and_at_intervals(capsys, monkeypatch):
    log = Console(style="lines", every_seconds=5)
    for step, second in (
        (1, 100.0),
        (2, 102.0),
        (3, 104.9),
        (4, 105.0),
        (5, 106.0),
        (31200, 106.1),
    ):
        monkeypatch.setattr(console, "monotonic", lambda: second)  # noqa: B023
        log.log(train(step))
    lines = capsys.readouterr().out.splitlines()
    shown = [int(re.search(r"step +([\d,]+)/", line)[1].replace(",", "")) for line in lines]
    assert shown == [1, 4, 31200]


def test_an_unfinished_run_shows_its_last_record(capsys):
    end = {"kind": "end", "reason": "stopped by SIGTERM", "seconds": 3723.4, "step": 3}
    lines = show(capsys, train(1), train(2), train(3), end)
    assert ["step      3/31,200" in line for line in lines] == [False, True, False]
    assert lines[-1] == "stopped by SIGTERM: step 3 in 1:02:03"


def test_evaluations_and_notes_are_shown_at_once(capsys):
    lines = show(
        capsys,
        START,
        {"kind": "eval", "name": "knn", "step": 624, "top1": 63.2, "top5": 84.0},
        {"kind": "note", "level": "warning", "text": "bad [red]x[/red]\x1b[2J.jpg"},
        {"kind": "note", "level": "info", "text": "saved " + "y" * 200},
    )
    assert lines[-3:] == [
        "knn         step    624/31,200  top1 63.20  top5 84.00",
        "warning: bad [red]x[/red]?[2J.jpg",
        "saved " + "y" * 200,
    ]


def test_the_bar_on_a_terminal(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stdout", screen)
    log = Console(style="bar")
    log.screen.file = screen
    log.log(START)
    log.log(train(7800))
    log.log({"kind": "eval", "name": "knn", "step": 7800, "top1": 63.2})
    log.log({"kind": "end", "reason": "finished", "seconds": 10.0, "step": 7800})
    log.close()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert re.search(r"epoch  25\.00/100  [━╸╺]+ +25 %  step  7,800/31,200  ETA 1:12:01", text)
    assert "loss  6.123  lr  0.001235" in text
    assert text.rstrip().endswith("finished: step 7,800 in 0:10")
    assert screen.getvalue().count("\x1b[?25l") == screen.getvalue().count(
        "\x1b[?25h"
    )  # cursor back


@pytest.mark.parametrize(
    ("tty", "environment", "redraws"),
    [
        (True, {"TERM": "xterm"}, True),
        (False, {"TERM": "xterm"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {"TERM": "xterm", "CI": "true"}, False),
    ],
)
def test_auto_looks_at_the_terminal(monkeypatch, tty, environment, redraws):
    monkeypatch.delenv("CI", raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.setattr("sys.stdout.isatty", lambda: tty)
    assert (LOGGERS.build("console").live is not None) is redraws


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (6.1234, "6.123"), (0.0312, "0.03120"), (0.001, "0.001000"), (63.2, "63.20"),
        (12345.6, "12,346"), (1e-5, "1.000e-05"), (2e7, "2.000e+07"), (-0.5, "-0.5000"),
        (float("nan"), "nan"), (31200, "31,200"), ("yes", "yes"), (True, "True"),
    ],
)  # fmt: skip
def test_numbers(value, text):
    assert fmt.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (42.4, "0:42"), (725, "12:05"), (11229, "3:07:09"), (187860, "2 d 04:11")],
)
def test_durations(seconds, text):
    assert fmt.duration(seconds) == text


def test_large_numbers():
    assert [fmt.large(n) for n in (512, 23_508, 28_353_472, 1_272_000_000)] == [
        "512", "23.5 k", "28.4 M", "1.27 B",
    ]  # fmt: skip
