"""Every strategy's checkpoint continued under every other, on as many processes, fewer and more.

    python benchmarks/resume_pairs.py [--processes 2:2 4:2 2:4] [--optimizer larc]

Three steps, a checkpoint, three more steps; SyncBN over all processes, clipping, float64. The table
gives the largest relative difference of a loss, and the largest difference of a weight, from one
process that never stopped. The model is that of tests/engine/test_reshard.py.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "engine"))

STRATEGIES = ("reference_ddp", "ddp", "zero2", "zero3", "hsdp")


def measure(folder: Path, before: int, after: int, optimizer: str) -> list[list[str]]:
    """A row per strategy before, a column per strategy after."""
    import test_reshard as t
    from distributed import Ranks

    def go(ranks: Ranks, name: str, strategy: str, stop: int, resume: bool = False):
        return ranks(t.run, str(folder / name), strategy, optimizer, stop, resume)[0]

    rows = []
    with Ranks(1) as one, Ranks(before) as first, Ranks(after) as second:
        losses, weights = go(one, "whole", "auto", t.AFTER)
        for saved in STRATEGIES:
            go(first, saved, saved, t.BEFORE)
            rows.append([saved])
            for strategy in STRATEGIES:
                name = f"{saved}-{strategy}"
                shutil.copytree(folder / saved, folder / name)
                found, state = go(second, name, strategy, t.AFTER, resume=True)
                loss = max(abs(a - b) / abs(b) for a, b in zip(found, losses, strict=True))
                weight = max((state[k] - w).abs().max().item() for k, w in weights.items())
                rows[-1].append(f"{loss:.0e} / {weight:.0e}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", nargs="+", default=["2:2", "4:2", "2:4"])
    parser.add_argument("--optimizer", default="larc", choices=["larc", "lars", "adamw"])
    args = parser.parse_args()
    for pair in args.processes:
        before, after = map(int, pair.split(":"))
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(Path(folder), before, after, args.optimizer)
        print(f"\n| {before} -> {after} processes | " + " | ".join(STRATEGIES) + " |")
        print("|---" * (1 + len(STRATEGIES)) + "|")
        for row in rows:
            print("| " + " | ".join(row) + " |")
        print(f"\n{time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
