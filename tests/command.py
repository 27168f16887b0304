"""`command(*words, cwd=FOLDER)`: the command line in this process, which starts no Python anew."""

import io
import logging
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

import pytest

from vissl_lite import cli


def command(*words: str, cwd: Path) -> CompletedProcess:
    """What `vissl-lite WORDS` prints in this folder, and its exit code.

    Leaves the environment as it was: the command adds to it what its children need.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ),
        pytest.MonkeyPatch.context() as own,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        os.environ.pop("HYDRA_FULL_ERROR", None)
        own.setattr(sys, "argv", ["vissl-lite", *words])
        own.chdir(cwd)
        with pytest.raises(SystemExit) as stop:
            cli.main()
    _close_log()
    return CompletedProcess(words, stop.value.code, out.getvalue(), err.getvalue())


def _close_log() -> None:
    """Hydra leaves it to the end of the process, and a late record would open it again."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if type(handler) is logging.FileHandler:
            root.removeHandler(handler)
            handler.close()
