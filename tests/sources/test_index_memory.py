"""Sources on an index keep nothing of it in the process, and progress is told in plain lines."""

import importlib.util
import os
import sys
import time
from pathlib import Path

import numpy as np
from distributed import run_ranks

from vissl_lite import progress
from vissl_lite.sources._columns import Column, ColumnWriter, Strings, write_strings

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "source_index.py"


def private_memory(rank, world, kind, file, cache):
    """MB that a process of its own needs for the paths, by the benchmark's own measurement."""
    os.environ["VISSL_LITE_CACHE"] = cache
    spec = importlib.util.spec_from_file_location("source_index", SCRIPT)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    if not file.is_file():
        benchmark.write_paths(file, 300_000)  # 12 MB of text
    if kind is None:
        return len(benchmark.opened_as("index", file))
    return benchmark.worker(kind, file)["uss"]


def test_paths_on_an_index_cost_no_memory(tmp_path):
    where = (tmp_path / "paths.txt", str(tmp_path / "cache"))
    assert run_ranks(private_memory, 1, None, *where) == [300_000]  # prepares the index
    (index,) = run_ranks(private_memory, 1, "index", *where)
    (python_list,) = run_ranks(private_memory, 1, "python list", *where)
    assert index < 5 < python_list


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
    with progress.counter("short") as count:
        count.add(5)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "QUIET", 0.0)
    monkeypatch.setattr(progress.Counter, "interval", 0.0)
    with progress.counter("listing /data") as count:
        for _ in range(2048):
            count.add()
        time.sleep(0.01)
    assert capsys.readouterr().err.splitlines() == [
        f"listing /data: {n} in 0 s" for n in ("1,024", "2,048", "2,048")
    ]


def test_progress_as_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with progress.counter("listing", total=3) as count:
        count.add(3)
    assert "3/3" in capsys.readouterr().err
