"""Freed memory is used again instead of being mapped and faulted in anew."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, torch
from vissl_lite.engine.malloc import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def faults_per_tensor():
    for _ in range(5):
        torch.ones(16_000_000)
    before = faults()
    for _ in range(10):
        torch.ones(16_000_000)
    return (faults() - before) / 10

print(faults_per_tensor())
keep_freed_memory()
print(faults_per_tensor())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_large_tensors_fault_no_more():
    """Of 64 MB, just freed, in a new process: what the heap holds already has an influence."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=True
    )
    default, kept = map(float, done.stdout.split())
    assert kept < 0.2 * default
