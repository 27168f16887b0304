"""What torch.compile needs on a machine: Inductor writes C++ for a CPU, Triton for a GPU."""

import os
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import torch


def missing(device: torch.device) -> str | None:
    """What is not here and how to get it, "a C++ compiler; install g++, ..."; None if all is.

    Slim images of containers lack the C compiler that Triton builds its launchers with.
    """
    if device.type == "cpu":
        here = shutil.which(os.environ.get("CXX", "g++"))
        return None if here else "a C++ compiler; install g++, or set CXX to another one"
    if find_spec("triton") is None:
        return "Triton; pip install triton"
    given = os.environ.get("CC")
    if not any(map(shutil.which, [given] if given else ["gcc", "clang"])):
        return "a C compiler for Triton; install gcc, or set CC to another one"
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        return "Python's C headers for Triton; install python3-dev, or the like"
    return None
