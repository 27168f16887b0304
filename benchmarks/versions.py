"""What one version of torch wrote, another goes on with: checkpoints and exported weights.

    python benchmarks/versions.py OTHER_PYTHON [--strategy zero3] [--steps 20]

Two processes train half of the steps under one Python and the rest under the other, in both
directions; the losses of the second half are compared with those of a run that stayed where it
began. Then each evaluates (kNN) the `weights.safetensors` that the other exported.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from kills import WORDS, losses

LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def call(python: str, *words: str, cwd: Path, launch: list[str] = LAUNCH) -> str:
    """What a command of ours prints; its last line, where it fails, ends the script."""
    done = subprocess.run(
        [python, *launch, "-m", "vissl_lite", *words],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        sys.exit(f"{python} failed:\n{done.stdout[-2000:]}")
    return done.stdout


def version(python: str) -> str:
    text = "import torch; print(torch.__version__)"
    return subprocess.run([python, "-c", text], capture_output=True, text=True).stdout.strip()


def knn(python: str, run_dir: Path) -> float:
    """Accuracy of the exported weights."""
    out = run_dir.with_name(f"{run_dir.name}-knn-{version(python)}")
    words = ["config=evaluate/knn", f"init={run_dir / 'weights.safetensors'}", f"run_dir={out}"]
    call(python, *words, "device=cpu", cwd=run_dir.parent, launch=[])
    rows = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return max(value for row in rows for name, value in row.items() if name.endswith("top1"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("other", help="a Python that has another torch, and this library")
    parser.add_argument("--strategy", default="zero3")
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    work, half = Path(tempfile.mkdtemp()), args.steps // 2
    words = [*WORDS, f"parallel.strategy={args.strategy}", "train.log_every=1"]
    pythons = {version(p): p for p in (sys.executable, args.other)}
    if len(pythons) < 2:
        sys.exit(f"both have torch {version(args.other)}")
    stayed, went = {}, {}
    for one, python in pythons.items():
        stayed[one], went[one] = work / f"stayed-{one}", work / f"went-{one}"
        for folder, last in ((stayed[one], args.steps), (went[one], half)):
            call(python, *words, f"run_dir={folder}", f"train.max_steps={last}", cwd=work)
    for (one, _), (two, python) in zip(pythons.items(), reversed(pythons.items())):
        call(python, f"resume={went[one]}", f"train.max_steps={args.steps}", cwd=work)
        found, expected = losses(went[one]), losses(stayed[one])
        apart = max(abs(found[s] - expected[s]) / expected[s] for s in expected)
        both = [knn(p, stayed[one]) for p in pythons.values()]
        print(f"{one} -> {two}: {len(expected)} losses, at most {apart:.0e} apart;", end=" ")
        print("kNN of its weights " + ", ".join(f"{x:.4f}" for x in both))


if __name__ == "__main__":
    main()
