"""`vissl-lite report DIR [DIR ...] [--out FILE]`: what became of a run, as one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.filesize import decimal

from vissl_lite.report.report import write_report
from vissl_lite.report.runs import Run
from vissl_lite.words import Parser, check_file

USAGE = """usage: vissl-lite report DIR [DIR ...] [--out FILE]

DIR      the folder of a run; it may still be going on. Several: they are compared
--out    the page; default: DIR/report.html, of several runs report.html here
--brief  curves and numbers only: no images are read, no features computed

The page needs no network and no other file. See docs/report.md.
"""


def main(words: Sequence[str]) -> None:
    """Writes the page; `words` are what follows `vissl-lite report`.

    Raises:
        ConfigError: a mistake in them, or a folder that is no run.
    """
    if not words or {"-h", "--help"} & set(words):
        print(USAGE)
        return
    parser = Parser("report")
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--brief", action="store_true")
    given = parser.parse_args(list(words))
    alone = len(given.folders) == 1
    file = given.out or (Path(given.folders[0]) if alone else Path()) / "report.html"
    Run.read(given.folders[0])  # before the folder of the page is asked for
    check_file(file, "report --out")
    missing = write_report(given.folders, file, a_device(), pictures=not given.brief)
    for sentence in missing:
        print(f"left out: {sentence}")
    print(f"wrote {file} ({decimal(file.stat().st_size)})")


def a_device() -> torch.device:
    """A GPU if there is one: a report may be made on another machine than the run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
