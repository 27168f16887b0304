"""Sources on an index keep nothing of it in the process, and progress is told in plain lines."""

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np

from vissl_lite.sources import _progress
from vissl_lite.sources._columns import Column, ColumnWriter, Strings, write_strings

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "source_index.py"


def test_paths_on_an_index_cost_no_memory(tmp_path, monkeypatch):
    """The benchmark's own measurement, in this process and for 300,000 paths, 12 MB of text."""
    monkeypatch.setenv("VISSL_LITE_CACHE", str(tmp_path / "cache"))
    spec = importlib.util.spec_from_file_location("source_index", SCRIPT)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    benchmark.write_paths(tmp_path / "paths.txt", 300_000)
    benchmark.opened_as("index", tmp_path / "paths.txt")
    measured = {kind: benchmark.worker(kind, tmp_path / "paths.txt") for kind in benchmark.KINDS}
    assert measured["index"]["uss"] < 5 < measured["python list"]["uss"]  # MB
    assert measured["index"]["open"] < 1.0  # seconds


def test_columns_are_what_numpy_reads(tmp_path):
    writer = ColumnWriter(tmp_path / "c.npy", "int32")
    for start in range(0, 100_000, 1000):
        writer.extend(range(start, start + 1000))
    writer.close()
    assert np.array_equal(np.load(tmp_path / "c.npy"), np.arange(100_000, dtype=np.int32))
    assert Column(tmp_path / "c.npy").read(99_998, 100_000).tolist() == [99_998, 99_999]


def test_empty_and_odd_strings(tmp_path):
    words = ["", "ä", "\udcff", "", "x" * 100_000]
    write_strings(tmp_path, "words", words)
    strings = Strings(tmp_path, "words")
    assert [strings[i] for i in range(len(strings))] == words
    write_strings(tmp_path, "none", [])
    assert len(Strings(tmp_path, "none")) == 0


def test_progress_in_plain_lines(capsys, monkeypatch):
    with _progress.counter("short") as progress:
        progress.add(5)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(_progress, "QUIET", 0.0)
    monkeypatch.setattr(_progress.Counter, "interval", 0.0)
    with _progress.counter("listing /data") as progress:
        for _ in range(2048):
            progress.add()
        time.sleep(0.01)
    assert capsys.readouterr().err.splitlines() == [
        f"listing /data: {n} in 0 s" for n in ("1,024", "2,048", "2,048")
    ]


def test_progress_as_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with _progress.counter("listing", total=3) as progress:
        progress.add(3)
    assert "3/3" in capsys.readouterr().err
