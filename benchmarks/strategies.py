"""Every strategy x checkpointing x precision x model on 2 and 4 processes, ten steps each.

    python benchmarks/strategies.py [--processes 2 4] [--models MODEL ...] [--json FILE]

A cell is right when its losses equal those of one process on the same global batch (SyncBN over all
processes) and those of the other cells. The table gives the largest relative difference of a loss
from one process / from the first cell of the same precision, and of a weight from one process.
Other sums round otherwise, and BatchNorm over eight images through fifty layers makes much of it:
the row "one bit" tells how much, by one process whose first weights are multiplied by 1 +- eps.
The models are those of tests/engine/test_strategies.py.
"""

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from unittest.mock import patch

import torch

from vissl_lite.engine.trainer import Trainer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "engine"))

PRECISIONS = ("fp64", "fp32", "bf16", "fp16")
STEPS = 10
LR = 0.001  # with 0.01, resnext and resnet50 make 1e-2 of one bit even in float64


def measure(model: str, world: int) -> list[dict]:
    """Rows of all cells; those of a strategy at a time, for each rank hands out every weight."""
    import test_strategies as t
    from distributed import Ranks

    words = [f"++train.max_steps={STEPS}", f"++optimizer.lr={LR}"]
    alone = {p: t.cell(0, 1, model, "auto", "none", p, *words) for p in PRECISIONS}
    with patch.object(t, "trained", trained_from_other_bits):
        moved = {p: t.cell(0, 1, model, "auto", "none", p, *words) for p in PRECISIONS}
    start, first, rows = time.perf_counter(), {}, []

    def add(strategy: str, checkpointing: str, precision: str, found: tuple) -> None:
        first.setdefault(precision, found[0])
        cell = {"model": model, "processes": world, "strategy": strategy}
        cell |= {"checkpointing": checkpointing, "precision": precision}
        rows.append(cell | compared(found, alone[precision], first[precision]))

    with Ranks(world, timeout=7200) as ranks:
        for strategy in t.STRATEGIES:
            cells = list(itertools.product([strategy], t.CHECKPOINTING, PRECISIONS))
            for cell, found in zip(cells, ranks(t.cells, model, cells, *words)[0], strict=True):
                add(*cell, found)
    for precision, found in moved.items():
        add("one bit", "none", precision, found)
    print(f"{model}, {world} processes: {time.perf_counter() - start:.0f} s", flush=True)
    return rows


def compared(found, alone, first: list[float]) -> dict:
    """Losses and weights of a cell with those of one process, and losses with the first cell's."""
    (losses, state), (expected, weights) = found, alone
    return {
        "steps": len(losses),
        "one_process": apart(losses, expected),
        "first_cell": apart(losses, first),
        "weights": max((state[k] - t).abs().max().item() for k, t in weights.items()),
        "names_equal": list(state) == list(weights),
    }


def trained_from_other_bits(config, run_dir: Path) -> Trainer:
    """One process; every weight begins as what the seed gives times 1 + eps or 1 - eps."""
    trainer, rng = Trainer(config, run_dir), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in trainer.model.parameters():
            signs = torch.randint(0, 2, p.shape, generator=rng) * 2 - 1
            p.mul_(1 + signs * torch.finfo(p.dtype).eps)
    trainer.fit()
    return trainer


def apart(losses: list[float], others: list[float]) -> float:
    """The largest relative difference."""
    return max(abs(a - b) / abs(b) for a, b in zip(losses, others, strict=True))


def table(rows: list[dict]) -> str:
    """Markdown: the largest difference of each strategy and precision, over all checkpointing."""
    lines = ["| model | processes | strategy | " + " | ".join(PRECISIONS) + " | names |"]
    lines.append("|---" * (4 + len(PRECISIONS)) + "|")
    for key, group in itertools.groupby(
        rows, key=lambda r: (r["model"], r["processes"], r["strategy"])
    ):
        members = list(group)
        worst = [
            " / ".join(
                f"{max(r[kind] for r in members if r['precision'] == p):.0e}"
                for kind in ("one_process", "first_cell", "weights")
            )
            for p in PRECISIONS
        ]
        equal = "equal" if all(r["names_equal"] for r in members) else "DIFFER"
        lines.append("| " + " | ".join([*map(str, key), *worst, equal]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    import test_strategies as t

    rows = []
    for model, world in itertools.product(args.models or t.FOUR, args.processes):
        found = measure(model, world)
        print(table(found), flush=True)
        rows += found
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
