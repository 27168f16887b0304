"""What all tests share: filled registries, one thread per process, the real images."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def data_folder() -> Path | None:
    """Folder of real images: $VISSL_LITE_DATA, or beside the checkout; None if absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("VISSL_LITE_DATA", beside))
    return folder if folder.is_dir() else None
