"""The balanced order over 100 million images with tags: start-up, memory, frequencies, streams.

    python benchmarks/sampler.py [--images 100000000] [--balance sqrt] [--threshold 1e-4]

Makes a source of so many images with one to three of 17,000 tags, Zipf-distributed, as arrays in a
temporary folder (16 bytes per image), and prints
  - seconds until the order answers, when the factors are made and when they are found again,
    against the plain permutation;
  - private memory that the order adds to the process, after a million random positions;
  - microseconds per image in batches of 256;
  - of a tenth of an epoch: drawn against expected images per tag, as chi-square over its degrees of
    freedom (independent draws: 1 on average; fewer surprises: below);
  - whether 1, 2 and 4 ranks, and a run resumed in the middle, get the same images.

Shape suffixes: N images, T tags of all images, V kinds of tags.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from vissl_lite.config import Sampler
from vissl_lite.data.sampler import Order, StepSampler
from vissl_lite.engine.order import build_order
from vissl_lite.sources._columns import ColumnWriter

KINDS, BATCH, CHUNK = 17_000, 256, 1 << 22


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=100_000_000)
    parser.add_argument("--balance", choices=("sqrt", "uniform"), default="sqrt")
    parser.add_argument("--threshold", type=float, default=1e-4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VISSL_LITE_CACHE"] = str(Path(folder, "cache"))
        write_tags(Path(folder), options.images)
        measure(Path(folder), options)


def write_tags(folder: Path, images: int) -> None:
    """Columns `tags.values` (int32) and `tags.offsets` (int64) of so many images."""
    values = ColumnWriter(folder / "values.npy", "int32")
    offsets = ColumnWriter(folder / "offsets.npy", "int64")
    offsets.extend([0])
    cumulative_V = np.cumsum(1 / np.arange(1, KINDS + 1))
    rng = np.random.default_rng(0)
    for start in range(0, images, CHUNK):
        count_N = rng.integers(1, 4, min(CHUNK, images - start))
        first_N = np.searchsorted(cumulative_V, rng.random(len(count_N)) * cumulative_V[-1])
        ends_N = np.cumsum(count_N)
        nth_T = np.arange(ends_N[-1]) - np.repeat(ends_N - count_N, count_N)
        values.extend((np.repeat(first_N, count_N) + nth_T * 97) % KINDS)  # distinct per image
        offsets.extend(values.length - ends_N[-1] + ends_N)
    values.close()
    offsets.close()


class Source:
    """Tags in memory-mapped arrays."""

    num_classes, weights = KINDS, None

    def __init__(self, folder: Path):
        self.tags = tuple(np.load(folder / f"{name}.npy", "r") for name in ("values", "offsets"))

    def all_tags(self) -> tuple[np.ndarray, ...]:
        return self.tags

    def __len__(self) -> int:
        return len(self.tags[1]) - 1


def private_mb() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return action(), time.perf_counter() - start


def measure(folder: Path, options: argparse.Namespace) -> None:
    sampler = Sampler(options.balance, options.threshold)
    data = SimpleNamespace(sampler=sampler, source={"name": "benchmark", "n": options.images})
    config = SimpleNamespace(data=data, seed=0)
    (_, notes), first = timed(lambda: build_order(config, Source(folder)))  # pyright: ignore
    rng, plain = np.random.default_rng(1), Order([options.images])
    lookups = rng.integers(0, options.images, (1_000_000 // BATCH, BATCH))
    _, plainly = timed(lambda: look_up(plain, lookups))
    before = private_mb()
    (order, _), again = timed(lambda: build_order(config, Source(folder)))  # pyright: ignore
    _, seconds = timed(lambda: look_up(order, lookups))
    print(notes[0])
    print(f"start-up: {first:.1f} s, again {again:.1f} s")
    print(f"private memory: {private_mb() - before:+.1f} MB after a million random positions")
    each, alone = (1e6 * s / lookups.size for s in (seconds, plainly))
    print(f"per image: {each:.1f} us, plain permutation {alone:.1f} us")
    print(chi_square(order, folder))
    print(same_streams(order))


def look_up(order: Order, lookups: np.ndarray) -> None:
    for positions in lookups:
        order.indices(0, positions)


def chi_square(order: Order, folder: Path) -> str:
    values, offsets = (np.load(folder / f"{name}.npy", "r") for name in ("values", "offsets"))
    (expected,) = Path(os.environ["VISSL_LITE_CACHE"]).glob("index/balance-*/data-*/expected.npy")
    share_V = np.load(expected) / len(order) * order.scale
    drawn_V, drawn = np.zeros(KINDS), len(order) // 10
    for start in range(0, drawn, CHUNK):
        index_N = np.sort(order.indices(0, np.arange(start, min(start + CHUNK, drawn))))
        length_N = offsets[index_N + 1] - offsets[index_N]
        ends_N = np.cumsum(length_N)
        place_T = np.arange(ends_N[-1]) - np.repeat(ends_N - length_N, length_N)
        tags_T = values[np.repeat(offsets[index_N], length_N) + place_T]
        drawn_V += np.bincount(tags_T, minlength=KINDS)
    expected_V = share_V * drawn
    ratio = ((drawn_V - expected_V) ** 2 / expected_V).sum() / (KINDS - 1)
    worst = (np.abs(drawn_V - expected_V) / np.sqrt(expected_V)).max()
    return (
        f"drawn {drawn:,} positions: chi-square / degrees of freedom {ratio:.3f}; worst tag"
        f" {worst:.2f} standard deviations off, of {KINDS:,}"
    )


def same_streams(order: Order) -> str:
    steps, batch = 40, 512
    first = len(order) // batch - steps // 2  # across the end of an epoch

    def stream(rank: int, world: int, start: int) -> list[np.ndarray]:
        asked = StepSampler(len(order), batch, first + steps, start=start, rank=rank, world=world)
        return [order.indices(request.epoch, request.positions) for request in asked]

    whole = stream(0, 1, first)
    for world in (2, 4):
        parts = zip(*(stream(rank, world, first) for rank in range(world)))
        assert all((np.concatenate(p) == w).all() for p, w in zip(parts, whole))
    resumed = stream(0, 1, first + 13)
    assert all((r == w).all() for r, w in zip(resumed, whole[13:]))
    return "1, 2 and 4 ranks, and a run resumed after 13 steps: the same images"


if __name__ == "__main__":
    main()
