"""What a GPU can do: SwAV steps of RegNetY-16GF, 128GF and 256GF with crops 2x224 + 4x96.

    benchmarks/gpu.sh [--cpu-toy] [--minutes 9] [--only grid,tests,overhead,classes,planner]

Goals, on one GPU of 80 GB: 256GF at 16 images without activation checkpointing; at least 25 % of
the bf16 peak eager, 35 % tuned. For comparison: SEER 9.3 % on V100, RegNetY-128GF 29 % on A100.

    grid      images/s, peak memory, share of the peak FLOP/s (recomputation not counted), largest
              batch; by checkpointing, compilation, memory format; fp16 with its scaler, zero3 on
              one NCCL process, images from the loader; the most expensive operators
    tests     pytest -m gpu, and files with other tests that skip without CUDA
    overhead  the trainer against a hand-written loop
    classes   classifiers of 17,000 to 1.5 million tags: time and peak memory of a step
    planner   planned against measured peaks

The most important come first; what the time does not suffice for is listed as left out. A cell that
fails or hangs is a line of the table.
"""

import argparse
import datetime
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path

import torch
from _gpu_cell import PHASES, Cell

HERE = Path(__file__).resolve().parent
PARTS = ("grid", "tests", "overhead", "classes", "planner")
CELL_S = {False: 120, True: 200}  # seconds that a cell may take, eager and compiled
SEER, TWIN, TWIN384 = "y_256gf_seer", "y_256gf_a376", "y_256gf_a384"
BLOCK, LAST = {"checkpointing": "block"}, {"memory_format": "channels_last"}
SELECTIVE = {"checkpointing": "selective"}

GRID = [
    Cell(SEER, 16, largest=True, profiled=True),
    Cell(SEER, 16, **LAST),
    Cell(SEER, 16, largest=True, **SELECTIVE),
    Cell(SEER, 16, largest=True, **BLOCK),
    Cell(TWIN, 16),
    Cell(TWIN, 16, **LAST),
    Cell(TWIN384, 16),
    Cell(TWIN384, 16, **LAST),
    Cell("y_128gf", 16, largest=True, profiled=True),
    Cell("y_128gf", 16, **LAST),
    Cell("y_128gf", 16, largest=True, **SELECTIVE),
    Cell("y_128gf", 16, largest=True, **BLOCK),
    Cell("y_16gf", 64, largest=True, profiled=True),
    Cell("y_16gf", 64, **LAST),
    Cell("y_16gf", 64, largest=True, **SELECTIVE),
    Cell("y_16gf", 64, largest=True, **BLOCK),
    Cell(TWIN, 16, autotune=True),
    Cell(TWIN, 16, autotune=True, **LAST),
    Cell("y_16gf", 64, compile=True),
    Cell("y_16gf", 64, compile=True, **LAST),
    Cell("y_16gf", 64, precision="fp16"),
    Cell("y_16gf", 64, strategy="zero3"),
    Cell("y_16gf", 64, loaded=True),
    Cell(TWIN, 16, compile=True),
    Cell("y_128gf", 16, compile=True),
    Cell(SEER, 16, strategy="zero3"),
]
TOY = [
    Cell("toy", 4, largest=True, profiled=True),
    Cell("toy", 4, largest=True, **SELECTIVE),
    Cell("toy", 4, **BLOCK, **LAST),
    Cell("toy", 4, autotune=True),
    Cell("toy", 4, compile=True),
    Cell("toy", 4, strategy="zero3"),
    Cell("toy", 4, loaded=True),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu-toy", action="store_true", help="tiny networks on this CPU")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which the rest is left")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    if not options.cpu_toy and not torch.cuda.is_available():
        sys.exit("no GPU here; --cpu-toy tries the script without one")
    deadline = time.monotonic() + 60 * options.minutes
    name = "cpu-toy" if options.cpu_toy else torch.cuda.get_device_name()
    result: dict = {
        "device": name,
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "date": datetime.date.today().isoformat(),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
    runs = {
        **{"grid": grid, "tests": tests, "overhead": overhead},
        **{"classes": classes, "planner": planner},
    }
    print(f"## {name}, torch {torch.__version__}, {result['date']}\n", flush=True)
    for part in [part for part in PARTS if part in options.only.split(",")]:
        spare = 60 if part == "grid" and not options.cpu_toy else 0  # for the other parts
        for found in runs[part](deadline - spare, options.cpu_toy):
            result.setdefault(part, []).append(found)
            file.write_text(json.dumps(result, indent=1))
    print(f"\n{file}")


# ---------------------------------------------------------------- the grid


def grid(deadline: float, toy: bool) -> Iterator[dict]:
    """Rows in the order of GRID, printed as they come."""
    cells = [replace(cell, toy=True, precision="fp32") for cell in TOY] if toy else GRID
    print("| network | variant | batch | images/s | share of peak | TFLOP/s | peak GB | loss |"
          " largest batch |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    rows = []
    for _, members in groupby(cells, key=lambda cell: cell.process):
        for cell, found in measured(list(members), deadline):
            rows.append({"cell": asdict(cell), **found})
            print(line(cell, found), flush=True)
            yield rows[-1]
    for row in rows:
        if "operators" in row:
            print(f"\n{row['cell']['model']}, share of the time on the device:")
            print("; ".join(f"{o['name']} {o['share']:.1%}" for o in row["operators"]))
            print("ms: " + ", ".join(f"{p} {row['ms'][p]:.1f}" for p in PHASES))


def measured(cells: list[Cell], deadline: float) -> Iterator[tuple[Cell, dict]]:
    """Each cell with what its process says of it; a new process goes on after a failure."""
    while cells:
        for answer in answers(cells, deadline):
            yield cells.pop(0), answer
            if "ended" in answer or not cells:
                break


def answers(cells: list[Cell], deadline: float) -> Iterator[dict]:
    """One per cell, until one of them ends the process."""
    limit = CELL_S[cells[0].compile]
    if time.monotonic() + 20 > deadline:
        yield {"error": "left out: no time", "ended": True}
        return
    with tempfile.TemporaryFile("w+") as log:
        process = start(cells, log)
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=pump, args=(process, lines), daemon=True).start()
        try:
            while True:
                said = lines.get(timeout=max(1.0, min(limit, deadline - time.monotonic())))
                if said is None:
                    yield {"error": f"ended: {last_line(log)}", "ended": True}
                    return
                if said.startswith("ROW "):
                    yield json.loads(said[4:])
        except queue.Empty:
            late = time.monotonic() >= deadline
            reason = "stopped: no time" if late else f"stopped after {limit} s"
            yield {"error": reason, "ended": True}
        finally:
            process.kill()
            process.wait()


def start(cells: list[Cell], log) -> subprocess.Popen:
    environment = os.environ | {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    process = subprocess.Popen(
        [sys.executable, str(HERE / "_gpu_cell.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=environment,
    )
    process.stdin.write(json.dumps([asdict(cell) for cell in cells]))
    process.stdin.close()
    return process


def pump(process: subprocess.Popen, lines: queue.Queue) -> None:
    for text in process.stdout:
        lines.put(text)
    lines.put(None)


def last_line(log) -> str:
    log.seek(0)
    return ([text.strip() for text in log if text.strip()] or ["without a word"])[-1][:160]


def line(cell: Cell, found: dict) -> str:
    """A row of the table."""
    named = {
        **{key: getattr(cell, key) for key in ("checkpointing", "memory_format", "precision")},
        "strategy": cell.strategy if cell.strategy != "auto" else "",
        **{key: key if getattr(cell, key) else "" for key in ("compile", "autotune", "loaded")},
    }
    hidden = ("none", "contiguous", "bf16", "fp32", "")
    variant = ", ".join(v for v in named.values() if v not in hidden) or "eager"
    if "error" in found:
        return f"| {cell.model} | {variant} | {cell.batch} | {found['error']} | | | | | |"
    return f"| {cell.model} | {variant} | {_rates(found)} | {_largest(found)} |"


def _rates(found: dict) -> str:
    numbers = f"{found['tflops']:.3g} | {found['peak_gb']:.1f} | {found['loss']:.4f}"
    return f"{found['batch']} | {found['images_per_s']:.1f} | {_share(found)} | {numbers}"


def _share(found: dict) -> str:
    return f"{found['mfu']:.1%}" if found["mfu"] else "-"


def _largest(found: dict) -> str:
    at = found.get("largest", {})
    if not at.get("batch"):
        return "none fits" if at else ""
    rate = f"{at['images_per_s']:.1f} images/s"
    return f"{at['batch']}: {rate}, {_share(at)}, {at['peak_gb']:.1f} GB"


# ---------------------------------------------------------------- the other parts


def tests(deadline: float, toy: bool) -> Iterator[dict]:
    """`pytest -m gpu`, and files with other tests that skip without CUDA."""
    found = {p: p.read_text() for p in (HERE.parent / "tests").glob("**/test_*.py")}
    others = [str(p) for p, t in found.items() if "not torch.cuda" in t and "mark.gpu" not in t]
    for name, words in (("marked gpu", ["-m", "gpu"]), ("not marked", others)):
        if words:
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
            yield from printed(f"tests {name}", command, min(deadline, time.monotonic() + 150))


def overhead(deadline: float, toy: bool) -> Iterator[dict]:
    command = [sys.executable, str(HERE / "_gpu_overhead.py"), *(["--cpu-toy"] if toy else [])]
    yield from printed("trainer against a hand-written loop", command, deadline)


def classes(deadline: float, toy: bool) -> Iterator[dict]:
    command = [sys.executable, str(HERE / "_gpu_classes.py"), *(["--cpu-toy"] if toy else [])]
    yield from printed("classifiers of many tags", command, min(deadline, time.monotonic() + 60))


def planner(deadline: float, toy: bool) -> Iterator[dict]:
    script = HERE / "planner.py"
    if not script.is_file():
        print("\nplanner: benchmarks/planner.py is not there")
        return
    command = [sys.executable, str(script), *(["--toy"] if toy else ["--device", "cuda"])]
    yield from printed("planner", command, deadline)


def printed(title: str, command: list[str], deadline: float) -> Iterator[dict]:
    """Runs a command and prints the end of what it says."""
    left = deadline - time.monotonic()
    print(f"\n{title}:", flush=True)
    if left < 5:
        text, code = "left out: no time", None
    else:
        try:
            done = subprocess.run(
                command,
                cwd=HERE.parent,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                capture_output=True,
                text=True,
                timeout=left,
            )
            text, code = done.stdout or done.stderr, done.returncode
        except subprocess.TimeoutExpired as stopped:  # its output is bytes, whatever `text` says
            said = (stopped.stdout or b"").decode(errors="replace").rstrip()
            text, code = f"{said}\nstopped after {left:.0f} s", None
    tail = "\n".join(text.strip().splitlines()[-40:])  # the planner's table has 38 lines
    print(tail, flush=True)
    yield {"title": title, "exit_code": code, "output": tail}


if __name__ == "__main__":
    main()
