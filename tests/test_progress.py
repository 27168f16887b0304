"""Plain lines of a log file tell how much of it is done and how long the rest takes."""

import time

from vissl_lite import progress
from vissl_lite.progress import Counter


def test_what_is_left(monkeypatch, capsys):
    now = time.monotonic()
    monkeypatch.setattr(Counter, "interval", 1_000)  # only when it is told to
    counted, unknown = Counter("files, kB", 4_000), Counter("images")
    monkeypatch.setattr(progress.time, "monotonic", lambda: now + 20)
    for each in (counted, unknown):
        each.add(1_000)
        each.show()
    assert capsys.readouterr().err.splitlines() == [
        "files, kB: 1,000 of 4,000 in 20 s, 60 s left",
        "images: 1,000 in 20 s",
    ]
    counted.add(3_000)
    counted.show()
    assert capsys.readouterr().err == "files, kB: 4,000 in 20 s\n"
