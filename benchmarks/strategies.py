"""Every strategy x checkpointing x precision x model on 2 and 4 processes, ten steps each.

    python benchmarks/strategies.py [--processes 2 4] [--models MODEL ...] [--json FILE]

A cell is right when its losses equal those of one process on the same global batch (SyncBN over all
processes) and those of the other cells. The table gives the largest relative difference of a loss
from one process / from the first cell of the same precision: other sums round otherwise, and ten
steps of a deep network on eight images make much of it in all precisions but float64. The models
are those of tests/engine/test_strategies.py.
"""

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "engine"))

PRECISIONS = ("fp64", "fp32", "bf16", "fp16")
STEPS = 10


def measure(model: str, world: int) -> list[dict]:
    import test_strategies as t
    from distributed import run_ranks

    steps = f"++train.max_steps={STEPS}"
    cells = list(itertools.product(t.STRATEGIES, t.CHECKPOINTING, PRECISIONS))
    start, rows = time.perf_counter(), []
    alone = {p: t.cell(0, 1, model, "auto", "none", p, steps) for p in PRECISIONS}
    found = run_ranks(t.cells, world, model, cells, steps, timeout=7200)[0]
    first = dict(zip((p for _, _, p in cells[: len(PRECISIONS)]), found))
    for (losses, state), (strategy, checkpointing, precision) in zip(found, cells):
        rows.append(
            {
                "model": model,
                "processes": world,
                "strategy": strategy,
                "checkpointing": checkpointing,
                "precision": precision,
                "steps": len(losses),
                "one_process": apart(losses, alone[precision][0]),
                "first_cell": apart(losses, first[precision][0]),
                "weights": max(
                    (state[k] - t).abs().max().item() for k, t in alone[precision][1].items()
                ),
                "names_equal": list(state) == list(alone[precision][1]),
            }
        )
    print(f"{model}, {world} processes: {time.perf_counter() - start:.0f} s", flush=True)
    return rows


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
                for kind in ("one_process", "first_cell")
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
