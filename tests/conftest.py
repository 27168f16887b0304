"""What all tests share: filled registries, one thread per process, the real images."""

import os
import subprocess
from contextlib import ExitStack
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("HYDRA_FULL_ERROR", None)  # it asks for tracebacks, tests for sentences

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_this_process(tmp_path_factory):
    """Nothing is left in the home, and parallel processes do not meet."""
    os.environ["VISSL_LITE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def ranks():
    """`ranks(world)`: `Ranks` of so many processes, the same ones for all tests of a file."""
    from distributed import Ranks

    with ExitStack() as stack:
        yield cache(lambda world: stack.enter_context(Ranks(world, timeout=300)))


@pytest.fixture
def small_disk(tmp_path):
    """`small_disk("48k")`: an empty folder with so much room."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mounted(size: str) -> Path:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("a small file system needs the right to mount")
        return folder

    yield mounted
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def photographs_tar() -> Path:
    """250 photographs of ImageNet; without them a test that asks for them is skipped."""
    archive = (data_folder() or Path("absent")) / "imagenet-samples-250.tar"
    if not archive.is_file():
        pytest.skip(f"{archive.name} is not here; set $VISSL_LITE_DATA to its folder")
    return archive


def data_folder() -> Path | None:
    """Folder of real images: $VISSL_LITE_DATA, or beside the checkout; None if absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("VISSL_LITE_DATA", beside))
    return folder if folder.is_dir() else None
