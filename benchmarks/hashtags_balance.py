"""Held-out average precision of frequent and rare tags by how the images are sampled.

    python benchmarks/hashtags_balance.py [--seeds 2]
    python benchmarks/hashtags_balance.py --commands

Makes the example's captions and its vocabulary by the commands of docs/hashtags.md, and trains the
recipe pretrain/hashtag/example with `balance` none, sqrt and uniform, for the same number of
steps. Prints mean and standard deviation over seeds of what `tag_prediction` measures on the
held-out images: mAP of the head (the most frequent 10 % of the tags), the middle (40 %) and the
tail (50 %).
`--commands` runs the commands of docs/hashtags.md instead, each by itself, from raw captions to
predicted tags with their pictures, and prints the wall time of each with the start of Python.
Last result: see RESULTS.md.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hydra
import numpy as np
import torch

from vissl_lite.config import Config, check
from vissl_lite.engine.build import build_source
from vissl_lite.engine.order import build_order
from vissl_lite.engine.trainer import Trainer
from vissl_lite.plugins import load_entries, register_with_hydra

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ("mAP", "mAP_head", "mAP_middle", "mAP_tail", "precision@1", "recall@5")
EPOCHS = 12  # of all images once


def make_vocabulary(folder: Path) -> Path:
    """The first commands of the recipe, timed; writes into `folder`/example."""
    _timed("hashtags", "example", "example", cwd=folder)
    lists = "--aliases", "example/aliases.tsv", "--block", "example/block.txt"
    out = "--min-count", "10", "--out", "example/vocab"
    _timed("hashtags", "build", "example/captions.parquet", *lists, *out, cwd=folder)
    known = "--vocabulary", "example/vocab", "--out", "example/vocab/test"
    _timed("hashtags", "build", "example/test.parquet", *known, cwd=folder)
    return folder / "example" / "vocab"


def run_commands(folder: Path, *words: str) -> None:
    """All of them; `words` go to the training."""
    start = time.perf_counter()
    os.environ["HASHTAGS"] = str(make_vocabulary(folder))
    _timed("config=pretrain/hashtag/example", "run_dir=runs/tags", *words, cwd=folder)
    test = "example/vocab/test/images.parquet", "tags=classes"
    out = "--out", "tags.tsv", "--page", "tags.html"
    print(_timed("hashtags", "predict", "runs/tags", *test, *out, cwd=folder).strip())
    cores, seconds = len(os.sched_getaffinity(0)), time.perf_counter() - start
    print(f"all: {seconds:.1f} s on {cores} cores, load {os.getloadavg()[0]:.1f}")


def _timed(*words: str, cwd: Path) -> str:
    """Runs a command with the threads that it chooses itself; returns what it prints."""
    start = time.perf_counter()
    run = [sys.executable, ROOT / "tools" / "run.py", *words]
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(run, cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr}")
    print(f"{time.perf_counter() - start:6.1f} s  {' '.join(words)}", flush=True)
    return done.stdout


def configured(balance: str, seed: int) -> Config:
    """The recipe, as long as `EPOCHS` epochs of all images once."""
    words = ["config=pretrain/hashtag/example", "++recipe=benchmark", f"++seed={seed}"]
    words += [f"++data.sampler.balance={balance}", "hooks=[evaluate]", "loggers=[]"]
    with hydra.initialize(version_base="1.3", config_path=None):
        config = check(hydra.compose("defaults", words))
    source = build_source(config)
    config.train.epochs = EPOCHS * len(source) / len(build_order(config, source)[0])
    return config


def measured(balance: str, seed: int) -> list[float]:
    """Trains once."""
    start, config = time.perf_counter(), configured(balance, seed)
    config.hooks["evaluate"]["at_start"] = False
    trainer = Trainer(config, Path(tempfile.mkdtemp()))
    trainer.fit()
    found = [trainer.results[f"tag_prediction.{metric}"] for metric in SHOWN]
    shown = ", ".join(f"{name} {value:.4f}" for name, value in zip(SHOWN, found))
    seconds = time.perf_counter() - start
    print(f"{balance}, seed {seed}: {shown}; {trainer.step} steps, {seconds:.0f} s", flush=True)
    return found


def main():
    """Prints a table, or the times of the commands."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--commands", action="store_true")
    parser.add_argument("words", nargs="*", help="for the training of --commands")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    if options.commands:
        run_commands(folder, *options.words)
        return
    seeds = range(options.seeds)
    load_entries()
    register_with_hydra()
    os.environ["HASHTAGS"] = str(make_vocabulary(folder))
    rows = {b: [] for b in ("none", "sqrt", "uniform")}
    for seed in seeds:
        for balance, found in rows.items():
            found.append(measured(balance, seed))
    print(f"| balance | {' | '.join(SHOWN)} |")
    for balance, found in rows.items():
        mean, std = np.mean(found, 0), np.std(found, 0, ddof=len(found) > 1)
        print(
            f"| {balance} | " + " | ".join(f"{m:.3f} +- {s:.3f}" for m, s in zip(mean, std)) + " |"
        )
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {len(seeds)} seeds")


if __name__ == "__main__":
    main()
