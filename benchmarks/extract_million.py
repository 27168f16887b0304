"""Features of a million images by two processes, killed in mid-way and started again.

    python benchmarks/extract_million.py [--n 1000000] [--folder DIR]

A tiny trunk looks at synthetic images of 8 pixels. SIGKILL ends all processes once half of the
blocks are written; the same command goes on. Then, of what is there:

names       row i is named synthetic/i and labelled i mod 1000, for every i
unique      no two rows are equal, and none is NaN
whole       the digest is that of an extraction by one process that nobody disturbed
samples     rows of 2,000 images equal the trunk on those images, read and resized by Pillow

It ends with an AssertionError where one of them does not hold.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vissl_lite import TRUNKS
from vissl_lite.config import IMAGENET_MEAN, IMAGENET_STD
from vissl_lite.extract.stored import open_features
from vissl_lite.plugins import load_entries
from vissl_lite.sources.synthetic import Synthetic

SIDE, BATCH, SAMPLES = 8, 250, 2000
TRUNK = {"name": "anynet", "depths": [1], "widths": [32], "group_widths": [16], "stem_width": 16}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(options.n, options.folder or Path(scratch))


def measure(n: int, folder: Path) -> None:
    load_entries()
    torch.manual_seed(0)
    trunk = TRUNKS.build(TRUNK).eval()
    torch.save(trunk.state_dict(), folder / "t.pth")
    killed, seconds = folder / "killed", []
    done = start_and_kill(n, killed)
    for out, processes in ((killed, 2), (folder / "whole", 1)):
        began = time.perf_counter()
        subprocess.run(command(n, out, processes), check=True)
        seconds.append(time.perf_counter() - began)
    print(f"killed after {done:,} of {-(-n // BATCH):,} blocks; went on for {seconds[0]:.0f} s")
    print(f"undisturbed, one process: {seconds[1]:.0f} s, {n / seconds[1]:,.0f} images/s")
    check(n, trunk, killed, folder / "whole")


def command(n: int, out: Path, processes: int) -> list[str]:
    words = [str(out.parent / "t.pth"), "synthetic", f"n={n}", f"size={SIDE}", f"--size={SIDE}"]
    words += ["--dtype=float16", f"--batch-size={BATCH}", f"launch.processes={processes}"]
    return [sys.executable, "-m", "vissl_lite", "extract", *words, "--device=cpu", f"--out={out}"]


def start_and_kill(n: int, out: Path) -> int:
    """Returns how many blocks were written when all processes were killed."""
    process = subprocess.Popen(command(n, out, 2), start_new_session=True)
    while lines(out) < n / BATCH / 2:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(2)  # those of other process groups die with their parent
    return lines(out)


def lines(out: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in out.glob("done-*.jsonl"))


def check(n: int, trunk: torch.nn.Module, killed: Path, whole: Path) -> None:
    features = open_features(killed)
    x_ND = np.load(killed / "res2.npy", mmap_mode="r")
    assert x_ND.shape == (n, TRUNK["widths"][0])
    assert all(features.name(i) == f"synthetic/{i}" for i in range(n))
    assert (np.load(killed / "labels.npy") == np.arange(n) % 1000).all()
    rows = {x_D.tobytes() for x_D in x_ND}
    assert len(rows) == n
    assert not np.isnan(x_ND).any()
    assert digest(killed) == digest(whole)
    difference = worst(n, trunk, x_ND)
    assert difference < 0.01
    print(f"rows {n:,}, all named in order, {len(rows):,} distinct, digest {digest(killed)}")
    print(f"{SAMPLES:,} rows against Pillow and the trunk: largest difference {difference:.1e}")


def usual(image_HWC: np.ndarray) -> np.ndarray:
    """Resized and cropped as to 256 and 224 pixels; the centre of 9 pixels is the first 8."""
    large = Image.fromarray(image_HWC).resize([int(SIDE / 0.875)] * 2, Image.Resampling.BILINEAR)
    return np.asarray(large.crop((0, 0, SIDE, SIDE)))


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "res2.npy").read_bytes()).hexdigest()[:16]


@torch.no_grad()
def worst(n: int, trunk: torch.nn.Module, x_ND: np.ndarray) -> float:
    """Largest difference over the largest feature, of images drawn without replacement."""
    indices = np.sort(np.random.default_rng(0).choice(n, min(n, SAMPLES), replace=False))
    source, mean, std = Synthetic(n, SIDE), torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    images = torch.tensor(np.stack([usual(source[int(i)].image) for i in indices]))
    (y_NCHW,) = trunk(((images / 255 - mean) / std).permute(0, 3, 1, 2)).values()
    expected_ND = y_NCHW.mean((2, 3)).numpy()
    return float(np.abs(x_ND[indices] - expected_ND).max() / expected_ND.max())


if __name__ == "__main__":
    main()
