"""The record of a run: one JSON object per line."""

import errno
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from vissl_lite import LOGGERS


@LOGGERS.register("jsonl")
class JSONL:
    """Every record as one JSON object per line of run_dir/metrics.jsonl.

    Written at once, so that a killed run loses nothing but the line being written; a torn last line
    is dropped when the file is opened again. A full disk does not end the training: what cannot be
    written is left out, which stderr says once then and once at the end. Numbers that are not
    finite, which JSON lacks, are the strings "nan", "inf" and "-inf" (Python's and pandas' float()
    read them).

    Args:
        run_dir: folder of the run; made if it is missing.
    """

    def __init__(self, *, run_dir: Path):
        self.path = Path(run_dir) / "metrics.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        _cut(self.path, math.inf)
        self.file = self.path.open("ab", buffering=0)
        self.lost = 0

    def log(self, record: dict[str, Any]) -> None:
        line = json.dumps(_finite(record), allow_nan=False) + "\n"
        try:
            self._append(line.encode())
        except OSError as error:
            if not self.lost:
                _say(f"{self.path} cannot be written ({error.strerror}); training goes on")
            self.lost += 1

    def _append(self, line: bytes) -> None:
        """The whole line or nothing: a disk takes what it has room for."""
        before = os.fstat(self.file.fileno()).st_size
        if (self.file.write(line) or 0) < len(line):
            self.file.truncate(before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def rewind(self, step: int) -> None:
        """Cuts the file before the first record of a later step: a resumed run writes them anew."""
        _cut(self.path, step)

    def close(self) -> None:
        if self.lost:
            _say(f"{self.path} lacks {self.lost} records, which could not be written")
            self.lost = 0
        self.file.close()


def _say(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr, flush=True)


def _cut(path: Path, last_step: float) -> None:
    """Ends the file before the first line that is torn or belongs to a step after `last_step`."""
    kept = 0
    with path.open("rb+") as file:
        for line in file:
            if not line.endswith(b"\n") or json.loads(line).get("step", 0) > last_step:
                break
            kept += len(line)
        file.truncate(kept)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
