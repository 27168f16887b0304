"""What is missing to compile with, and how to get it."""

import sysconfig

import pytest
import torch

from vissl_lite import compiler

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def programs(monkeypatch):
    """The programs that are there."""
    found = {"g++", "gcc"}
    monkeypatch.setattr("shutil.which", lambda name: name if name in found else None)
    monkeypatch.setattr(compiler, "find_spec", lambda name: name)
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    return found


def test_nothing_is_missing(programs, monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    (tmp_path / "Python.h").touch()
    assert compiler.missing(CPU) is None
    assert compiler.missing(CUDA) is None
    (tmp_path / "Python.h").unlink()
    assert compiler.missing(CUDA) == (
        "Python's C headers for Triton; install python3-dev, or the like"
    )


def test_compilers_and_triton(programs, monkeypatch):
    programs.clear()
    assert compiler.missing(CPU) == "a C++ compiler; install g++, or set CXX to another one"
    assert (
        compiler.missing(CUDA) == "a C compiler for Triton; install gcc, or set CC to another one"
    )
    monkeypatch.setenv("CXX", "mine")
    programs.add("mine")
    assert compiler.missing(CPU) is None
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    assert compiler.missing(CUDA) == "Triton; pip install triton"
