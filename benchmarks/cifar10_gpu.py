"""SimCLR and SwAV, ResNet-18 on CIFAR-10, for as long as there is a GPU.

    benchmarks/cifar10_gpu.sh MINUTES IMAGES [--methods simclr,swav] [--epochs N] [--out DIR]

Goals after 200 epochs, kNN with k = 200, T = 0.1: SimCLR 84.8 %, SwAV 84.2 % (lightly's benchmark,
the best of all epochs). Each method gets its share of the minutes. Without --epochs the recipe's
schedule is shortened to what its share suffices for, by a measurement of the speed; with --epochs
200 it stays whole: a run is stopped when its time is over, and the next call with the same --out
goes on with it.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

GOALS = {"simclr": 84.8, "swav": 84.2}
FULL = 200  # epochs of the recipes
USED = 0.7  # of a method's time trains; the rest starts, evaluates and saves
GRACE_S = 30  # for the last checkpoint; at most a tenth of a method's time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("minutes", type=float)
    parser.add_argument("images", type=Path)
    parser.add_argument("--methods", default="simclr,swav")
    parser.add_argument("--epochs", type=float, help="do not adapt the length to the time")
    parser.add_argument("--out", type=Path, default=Path("runs/cifar10_gpu"))
    parser.add_argument("--set", nargs="*", default=[], help="settings for every run")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    os.environ["CIFAR10"] = str(folder_of(options.images))
    methods = options.methods.split(",")
    rows = []
    for i, method in enumerate(methods):
        stop = time.monotonic() + (deadline - time.monotonic()) / (len(methods) - i)
        run_dir = options.out / method
        train(method, run_dir, stop, options.epochs, options.set)
        rows.append(row(method, run_dir))
    print("\n| method | epochs | kNN last | kNN best | goal | minutes | images/s | peak GB |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


def folder_of(images: Path) -> Path:
    """The folder with train/ and test/; an archive is unpacked into shared memory."""
    if images.is_dir():
        return images.resolve()
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    with tarfile.open(images) as archive:
        archive.extractall(folder, filter="data")
    [train] = folder.glob("**/train")
    return train.parent


def train(method: str, run_dir: Path, stop: float, epochs: float | None, words: list[str]) -> None:
    """Starts or resumes the run of a method, which ends by `stop`; SIGTERM before, which saves."""
    if (run_dir / "config.yaml").is_file():
        command = [f"resume={run_dir}"]
    else:
        recipe = f"config=pretrain/{method}/resnet18_cifar10_200ep"
        length = epochs or affordable(recipe, stop, words)
        print(f"{method}: {length:g} of {FULL} epochs", flush=True)
        command = [recipe, f"train.epochs={length}", f"hooks.evaluate.every_epochs={length / 4}"]
        command += [f"hydra.run.dir={run_dir}", *words]
    process = subprocess.Popen([sys.executable, "-m", "vissl_lite", *command])
    left = max(1.0, stop - time.monotonic())
    grace = min(GRACE_S, left / 10)
    for end, seconds in ((process.terminate, left - grace), (process.kill, grace)):
        try:
            process.wait(seconds)
            return
        except subprocess.TimeoutExpired:
            end()
    process.wait()
    print(f"{method}: killed, for it did not end within {grace:.0f} s of SIGTERM", flush=True)


def affordable(recipe: str, stop: float, words: list[str]) -> float:
    """Epochs that the time until `stop` suffices for, by the speed of some steps."""
    found = json.loads(
        subprocess.check_output([sys.executable, __file__, "--rate", recipe, *words])
    )
    epochs = USED * (stop - time.monotonic()) * found["images_per_s"] / found["images"]
    return min(FULL, int(epochs) if epochs >= 4 else round(epochs, 3))


def rate(words: list[str]) -> None:
    """Prints images/s with the real loader, in a process that gives its memory back."""
    from vissl_lite.engine.build import build_source
    from vissl_lite.overrides import compose
    from vissl_lite.plugins import load_entries
    from vissl_lite.profile.settings import Settings
    from vissl_lite.profile.step import bench_step

    load_entries()
    config = compose(words)
    on_gpu = config.device != "cpu"
    steps = Settings(steps=60, warmup=30) if on_gpu else Settings(steps=3, warmup=1)
    found = bench_step(config, steps)
    images = len(build_source(config))
    print(json.dumps({"images_per_s": found["images_per_s"], "images": images}))


def row(method: str, run_dir: Path) -> str:
    """What the run's log says."""
    log = run_dir / "metrics.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    steps = [r for r in records if r["kind"] == "train"]
    knn = [100 * r["top1"] for r in records if r["kind"] == "eval" and r["name"] == "knn"]
    last, best = (f"{knn[-1]:.1f} %", f"{max(knn):.1f} %") if knn else ("none", "none")
    if not steps:
        return f"| {method} | stopped before the first line of its log | | | | | | |"
    minutes = sum(r["seconds"] for r in records if r["kind"] == "end") / 60
    speed = sorted(r["images_per_s"] for r in steps)[len(steps) // 2]
    peak = max(r["memory_gb"] for r in steps)
    return (
        f"| {method} | {steps[-1]['epoch']:.1f} of {FULL} | {last} | {best} | {GOALS[method]} % |"
        f" {minutes:.1f} | {speed:,.0f} | {peak:.1f} |"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rate"]:
        rate(sys.argv[2:])
    else:
        main()
