from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vissl_lite import HOOKS
from vissl_lite.hooks.base import Hook
from vissl_lite.parallel.collectives import rank

if TYPE_CHECKING:
    from vissl_lite.engine.trainer import Trainer

Note = Callable[[str, str], None]  # text and level


@HOOKS.register("report")
class Report(Hook):
    """Writes RUN/report.html at the end, as `vissl-lite report RUN` does: docs/report.md.

    Rank 0 alone writes it, from the files of the run, when the last checkpoint is there. A run that
    a signal ends gets the curves only: it may have seconds left. Whatever goes wrong is a warning;
    a training is never lost for its report. Jobs that only evaluate write it where they name this
    hook (`hooks=[report]`).

    Args:
        pictures: views, neighbours, map, prototypes and confusion, which takes seconds; false:
            curves and numbers only.
    """

    last = True  # after `checkpoint`, which stands before it

    def __init__(self, pictures: bool = True):
        self.pictures = pictures

    def on_end(self, trainer: Trainer) -> None:
        pictures = self.pictures and trainer.stop.received is None
        _write(trainer.run_dir, trainer.device, pictures, trainer.journal.note)

    def after_evaluations(self, run_dir: Path, device: torch.device, note: Note) -> None:
        _write(run_dir, device, self.pictures, note)


def _write(run_dir: Path, device: torch.device, pictures: bool, note: Note) -> None:
    if rank() > 0:
        return
    from vissl_lite.report.report import write_report  # needs scikit-learn, a second

    file = run_dir / "report.html"
    try:
        write_report([run_dir], file, device, pictures)
    except Exception as error:
        text = f"report: {type(error).__name__}: {error}; it can be made again with"
        note(f"{text} vissl-lite report {run_dir}", "warning")
    else:
        note(f"report: {file}", "info")
