"""Freed memory is used again instead of being mapped and faulted in anew."""

import platform
import resource

import pytest
import torch
from distributed import run_ranks

from vissl_lite.engine.malloc import keep_freed_memory


def faults_per_tensor(rank, world, keep):
    """Page faults of writing a tensor of 64 MB that has just been freed, 10 times over."""
    if keep:
        keep_freed_memory()
    for _ in range(5):
        torch.ones(16_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(16_000_000)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_large_tensors_fault_no_more():
    (default,) = run_ranks(faults_per_tensor, 1, False)
    (kept,) = run_ranks(faults_per_tensor, 1, True)
    assert kept < 0.2 * default
