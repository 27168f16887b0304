"""Two nodes without SLURM, one of them killed: does the run go on with what is left?

Two agents of torchrun on two loopback addresses train one run on the CPU, a process each. When the
run has a checkpoint, the agent of the second node and its worker get SIGKILL. The first agent makes
a new group of one process, which goes on in the same run folder from the last checkpoint. With
`--victim worker` the second agent lives on, and both start new workers.

    python benchmarks/two_nodes.py --runs 5
    python benchmarks/two_nodes.py --runs 5 --victim worker

2026-11-22, 2 cores that others used too (load 4 to 8), torch 2.15, Python 3.11:

    node     7 of 7 runs went on alone, 19 to 29 s after the kill (the last: 27.6 s)
    worker   6 of 6 runs went on with both nodes, 14 to 19 s after the kill

In all of them the run went on from step 20, and each step is in the log once.

Prints for every run: whether it ended well, restarts, the step it went on from, and the seconds
from the kill to the next training record (most of them torch's own waiting for the lost node).
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STEPS, EVERY, KILL_AT = 60, 10, 20
RECIPE = [
    *("config=quickstart", f"train.max_steps={STEPS}", "train.batch_size=16"),
    *("train.log_every=1", "precision=fp32", "memory.memory_format=contiguous"),
    *("hooks=[checkpoint]", f"hooks.checkpoint.every_steps={EVERY}"),
    *("evaluations=[]", "loggers=[jsonl]", "device=cpu"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--victim", choices=("node", "worker"), default="node", help="worker: its agent lives on"
    )
    options = parser.parse_args()
    runs = [one_run(options.victim) for _ in range(options.runs)]
    good = [run for run in runs if run["ended"]]
    for run in runs:
        print(json.dumps(run))
    seconds = sorted(run["seconds"] for run in good)
    print(f"{len(good)} of {len(runs)} runs went on and ended; seconds to go on: {seconds}")


def one_run(victim: str) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder, "run")
        endpoint = f"127.0.0.1:{free_port()}"
        first = agent("127.0.0.1", endpoint, folder)
        time.sleep(2)  # it hosts the rendezvous, so that it is not the one to be killed
        second = agent("127.0.0.2", endpoint, folder)
        try:
            wait_for(run_dir / "checkpoints" / f"step-{KILL_AT:08d}" / "meta.json")
            kill(second, victim)
            killed_at = time.monotonic()
            while first.poll() is None and not goes_on(run_dir):
                time.sleep(0.1)
            seconds = time.monotonic() - killed_at
            ended = first.wait(timeout=300) == 0
        finally:
            kill(first)
            kill(second)
        return {"ended": ended, "seconds": round(seconds, 1), **story(run_dir)}


def agent(address: str, endpoint: str, folder: str) -> subprocess.Popen:
    """One node: torchrun with one worker."""
    patience = "last_call_timeout=3,keep_alive_interval=1,keep_alive_max_attempt=3"
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", "--rdzv-id=two_nodes"),
        *(f"--rdzv-conf={patience}", f"--local-addr={address}", "--max-restarts=3"),
        *(str(ROOT / "tools" / "run.py"), *RECIPE, f"run_dir={folder}/run"),
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    with Path(folder, f"{address}.txt").open("w") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, env=env, start_new_session=True)


def kill(node: subprocess.Popen, victim: str = "node") -> None:
    """SIGKILL for the agent and its worker, as if the machine had lost its power."""
    workers = subprocess.run(["pgrep", "-P", str(node.pid)], capture_output=True, text=True)
    agents = [node.pid] if victim == "node" else []
    for pid in [*agents, *map(int, workers.stdout.split())]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    if agents:
        node.wait()


def story(run_dir: Path) -> dict[str, object]:
    """What the log says: sizes of the group, and the step from which each went on."""
    starts = [r for r in all_records(run_dir) if r["kind"] == "start"]
    steps = [r["step"] for r in train_records(run_dir)]
    return {
        "worlds": [r["world_size"] for r in starts],
        "resumed_steps": [r["resumed_step"] for r in starts],
        "every_step_once": steps == list(range(1, STEPS + 1)),
    }


def all_records(run_dir: Path) -> list[dict]:
    file = run_dir / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def goes_on(run_dir: Path) -> bool:
    """Whether a second group has logged a step."""
    kinds = [r["kind"] for r in all_records(run_dir)]
    return kinds.count("start") > 1 and kinds[-1] == "train"


def train_records(run_dir: Path) -> list[dict]:
    return [r for r in all_records(run_dir) if r["kind"] == "train"]


def wait_for(file: Path, seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not file.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {file} after {seconds:g} s")
        time.sleep(0.1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


if __name__ == "__main__":
    main()
