"""Which process this is, and the group it belongs to."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist

from vissl_lite.errors import ConfigError


def launched_world_size() -> int:
    """Processes that torchrun or another launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched_rank() -> int:
    return int(os.environ.get("RANK", "0"))


def join_group() -> None:
    """Joins the process group that the launcher describes; does nothing for a single process."""
    if launched_world_size() == 1 or dist.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=10))


def leave_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def choose_device(name: str) -> torch.device:
    """The device of this process; 'auto' takes a GPU where there is one.

    Raises:
        ConfigError: 'cuda' is asked for on a machine without a usable GPU.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError(
            "device: cuda is asked for, but PyTorch finds no GPU here; set device=cpu, or"
            " device=auto to take whatever there is"
        )
    if name == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
