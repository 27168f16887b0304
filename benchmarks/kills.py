"""Kills a run of two processes again and again, with SIGKILL; each time it must go on.

    python benchmarks/kills.py [--kills 30] [--strategy zero3] [--seed 0] [--keep FOLDER]

Three ways, in turn: one process (its partner must end by itself), both at once, and both in the
middle of writing a checkpoint, which a thread of each does in the background. After every kill the
run is resumed from its own folder. At the end losses and weights must be those of a run that nobody
killed, bit for bit (CPU, fp32, the same number of processes). Prints a line per kill; `lost` are
the steps logged after the checkpoint it resumes from: at most one interval, or two where a save was
under way. Last result: see RESULTS.md.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from vissl_lite.engine.checkpoint import Checkpointer

WORLD, STEPS, EVERY = 2, 4000, 20
WORDS = [
    "config=quickstart",
    "trunk={name: resnet, depth: 18, stem: cifar, width_multiplier: 0.125}",
    "heads=[{name: mlp, hidden: [32], out_dim: 16}, {name: prototypes, num_prototypes: 12}]",
    "loss=swav",
    "loss.queue_length=64",
    "data.views=[{size: 16, count: 2, transforms: [random_resized_crop]}]",
    "data.workers=0",
    "train.batch_size=16",
    "train.epochs=100",
    f"train.log_every={EVERY // 2}",
    "precision=fp32",
    "memory.memory_format=contiguous",
    "device=cpu",
    "hooks=[checkpoint]",
    "hooks.checkpoint.background=true",
    f"hooks.checkpoint.every_steps={EVERY}",
    "evaluations=[]",
    "loggers=[jsonl]",
]
WAYS = ("one process", "both processes", "while saving")
PATIENCE = 60  # seconds that the partner of a dead process has to notice


def start(*words: str, cwd: Path) -> list[subprocess.Popen]:
    """Both processes of a run, each in a session of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "vissl_lite", *words],
            cwd=cwd,
            stdout=(cwd / f"rank-{rank}.log").open("a"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **common, "OMP_NUM_THREADS": "1"}
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(WORLD)},
        )
        for rank in range(WORLD)
    ]


def wait_for(condition, processes: list[subprocess.Popen], seconds: float = 300) -> bool:
    """Whether it came true while all processes were alive."""
    deadline = time.monotonic() + seconds
    while not condition():
        if any(p.poll() is not None for p in processes) or time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def kill(processes: list[subprocess.Popen], way: str, folder: Path, rng: random.Random) -> float:
    """Kills in one of `WAYS`; returns the seconds until all were gone."""
    if way == "while saving":
        wait_for(lambda: any(folder.glob("step-*.tmp")), processes)
        time.sleep(rng.uniform(0, 0.02))
    start = time.monotonic()
    for p in [rng.choice(processes)] if way == "one process" else processes:
        p.send_signal(signal.SIGKILL)
    for p in processes:
        p.wait(PATIENCE)
    return time.monotonic() - start


def run(words: list[str], run_dir: Path, kills: int, rng: random.Random) -> list[dict]:
    """A run to its end with so many kills on the way."""
    folder, rows = run_dir / "checkpoints", []
    keeper = Checkpointer(folder)
    processes = start(*words, f"hydra.run.dir={run_dir}", cwd=run_dir.parent)
    for i in range(kills):
        before = keeper.latest()
        if not wait_for(lambda before=before: keeper.latest() not in (None, before), processes):
            sys.exit(f"kill {i}: the run ended or stood still; see {run_dir.parent}/rank-*.log")
        time.sleep(rng.uniform(0, 0.5))
        way = WAYS[i % len(WAYS)]
        gone = kill(processes, way, folder, rng)
        latest = int(keeper.latest().name[-8:])
        unfinished = len(list(folder.glob("step-*.tmp")))
        lost = last_step(run_dir) - latest
        found = {"resumes_from": latest, "lost": lost, "unfinished": unfinished}
        rows.append({"kill": i, "way": way, **found, "seconds": round(gone, 1)})
        print(json.dumps(rows[-1]), flush=True)
        if lost > EVERY * (1 + unfinished):
            sys.exit(f"kill {i}: {lost} steps were lost; a checkpoint is saved every {EVERY}")
        last = [] if i + 1 < kills else [f"train.max_steps={latest + 2 * EVERY}"]
        processes = start(f"resume={run_dir}", *last, cwd=run_dir.parent)
    for p in processes:
        if p.wait(3600):
            sys.exit(f"the run failed; see {run_dir.parent}/rank-*.log")
    return rows


def last_step(run_dir: Path) -> int:
    """Of the last whole line that rank 0 logged."""
    whole = (run_dir / "metrics.jsonl").read_text().rpartition("\n")[0]
    return max(json.loads(line).get("step", 0) for line in whole.splitlines())


def losses(run_dir: Path) -> dict[int, float]:
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return {r["step"]: r["loss"] for r in lines if r["kind"] == "train"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--strategy", default="zero3")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="work here and leave everything")
    args = parser.parse_args()
    work = args.keep or Path(tempfile.mkdtemp())
    words = [*WORDS, f"parallel.strategy={args.strategy}"]
    killed, whole = work / "killed" / "run", work / "whole" / "run"
    killed.parent.mkdir(parents=True), whole.parent.mkdir(parents=True)
    rows = run([*words, f"train.max_steps={STEPS}"], killed, args.kills, random.Random(args.seed))
    last = max(losses(killed))
    run([*words, f"train.max_steps={last}"], whole, 0, random.Random())
    one, two = (load_file(d / "weights.safetensors") for d in (killed, whole))
    same = all(torch.equal(one[name], two[name]) for name in one) and one.keys() == two.keys()
    print(f"torch {torch.__version__}, {args.strategy}: {len(rows)} kills, {len(rows)} resumes")
    print(f"caught while saving: {sum(r['unfinished'] > 0 for r in rows)}")
    most = max((r["lost"] for r in rows), default=0)
    print(f"most steps lost: {most}, with a checkpoint every {EVERY}")
    print(f"losses equal: {losses(killed) == losses(whole)}; weights equal: {same}")


if __name__ == "__main__":
    main()
