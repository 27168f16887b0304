"""What a GPU can do: SwAV steps of RegNetY-16GF, 128GF and 256GF with crops 2x224 + 4x96.

    benchmarks/gpu.sh [--cpu-toy] [--minutes 9] [--only grid,tests,overhead,classes,planner]
        [--network NAME] [--out benchmarks/results]

Needs the packages that setup.py requires and, for `tests`, pytest; without a network, their wheels
in .whl/ (_on_gpu.sh).

Goals, on one GPU of 80 GB: 256GF at 16 images without activation checkpointing; at least 25 % of
the bf16 peak eager, 35 % tuned. For comparison: SEER 9.3 % on V100, RegNetY-128GF 29 % on A100.

    grid      images/s, peak memory, share of the peak FLOP/s (recomputation not counted), largest
              batch; by checkpointing, compilation, memory format; fp16 with its scaler, zero3 on
              one NCCL process, images from the loader; the most expensive operators
    tests     those marked gpu, and files with others that skip without CUDA
    overhead  the trainer against a hand-written loop
    classes   classifiers of 17,000 to 1.5 million tags: time and peak memory of a step
    planner   planned against measured peaks

The most important come first; what the time does not suffice for is listed as left out, and can be
asked for alone with --network. A cell that fails or hangs is a line of the table. What can be
measured on one network comes together, for to build 256GF takes about a minute.
"""

import argparse
import datetime
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import IO

import torch
from _gpu_cell import PHASES, Cell

HERE = Path(__file__).resolve().parent
PARTS = ("grid", "tests", "overhead", "classes", "planner")
SETUP_S = 180  # seconds until a network is built: 60 for 256GF on one thread
CELL_S = {False: 120, True: 200}  # seconds that a cell may take after that, eager and compiled
SPARE_S = 60  # of the minutes, for the other parts
SEER, TWIN, TWIN384 = "y_256gf_seer", "y_256gf_a376", "y_256gf_a384"
BLOCK, LAST = {"checkpointing": "block"}, {"memory_format": "channels_last"}
SELECTIVE = {"checkpointing": "selective"}


def eager(model: str, batch: int) -> list[Cell]:
    """First the rate that is asked for; searches, which run out of memory, last."""
    return [
        Cell(model, batch),
        Cell(model, batch, **LAST),
        Cell(model, batch, profiled=True),
        Cell(model, batch, **BLOCK),
        Cell(model, batch, **SELECTIVE),
        Cell(model, batch, largest=True),
        Cell(model, batch, largest=True, **BLOCK),
    ]


GRID = [
    *eager(SEER, 16),
    *eager("y_128gf", 16),
    *eager("y_16gf", 64),
    Cell("y_16gf", 64, precision="fp16"),
    Cell(TWIN, 16),
    Cell(TWIN, 16, **LAST),
    Cell(TWIN, 16, compile=True),
    Cell(TWIN, 16, autotune=True, **LAST),
    Cell(TWIN, 16, autotune=True),
    Cell(TWIN, 16, compile=True, autotune=True, **LAST),
    Cell("y_16gf", 64, compile=True),
    Cell("y_16gf", 64, compile=True, **LAST),
    Cell("y_16gf", 64, loaded=True),
    Cell("y_16gf", 64, strategy="zero3"),
    Cell(TWIN384, 16),
    Cell(TWIN384, 16, **LAST),
    Cell("y_128gf", 16, compile=True),
    Cell(SEER, 16, strategy="zero3"),
]
TOY = [
    Cell("toy", 4),
    Cell("toy", 4, profiled=True),
    Cell("toy", 4, largest=True),
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
    parser.add_argument("--network", default="", help="of the grid, those with this in their name")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    if not options.cpu_toy and not torch.cuda.is_available():
        sys.exit("no GPU here; --cpu-toy tries the script without one")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what was started, too
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
    cells = [replace(c, toy=True, precision="fp32") for c in TOY] if options.cpu_toy else GRID
    cells = [cell for cell in cells if options.network in cell.model]
    runs = {
        **{"grid": partial(grid, cells), "tests": tests, "overhead": overhead},
        **{"classes": classes, "planner": planner},
    }
    print(f"## {name}, torch {torch.__version__}, {result['date']}\n", flush=True)
    chosen = [part for part in PARTS if part in options.only.split(",")]
    for part in chosen:
        spare = SPARE_S if part == "grid" and len(chosen) > 1 and not options.cpu_toy else 0
        for found in runs[part](deadline - spare, options.cpu_toy):
            result.setdefault(part, []).append(found)
            file.write_text(json.dumps(result, indent=1))
    print(f"\n{file}")


# ---------------------------------------------------------------- the grid


def grid(cells: list[Cell], deadline: float, toy: bool) -> Iterator[dict]:
    """Rows in the order of the cells, printed as they come."""
    print("| network | variant | batch | images/s | share of peak | TFLOP/s | peak GB | loss |")
    print("|---|---|---|---|---|---|---|---|")
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
    """Each cell with what its process says of it; after one that ends it, a new one goes on."""
    while cells:
        said = answers(cells, deadline)
        built = next(said)
        if "error" in built:
            yield from ((cell, built) for cell in cells)
            return
        for answer in said:
            yield cells.pop(0), answer


def answers(cells: list[Cell], deadline: float) -> Iterator[dict]:
    """An empty one once the network is built, then one per cell, until one ends the process."""
    if time.monotonic() + 20 > deadline:
        yield {"error": "left out: no time"}
        return
    limits = [SETUP_S, *(CELL_S[cell.compile] for cell in cells)]
    with tempfile.TemporaryFile("w+") as log, asked(cells, log) as lines:
        for limit in limits:
            answer = heard(lines, limit, deadline, log)
            yield answer
            if "ended" in answer:
                return


def heard(lines: queue.Queue, limit: float, deadline: float, log: IO[str]) -> dict:
    """The next answer, or why there is none."""
    until = min(deadline, time.monotonic() + limit)
    try:
        while (text := lines.get(timeout=max(0.0, until - time.monotonic()))) is not None:
            if text.startswith("ROW "):
                return json.loads(text[4:])
        reason = f"ended: {last_line(log) or 'without a word'}"
    except queue.Empty:
        reason = "stopped: no time" if until == deadline else f"stopped after {limit} s"
    return {"error": reason, "ended": True}


@contextmanager
def asked(cells: list[Cell], log: IO[str]) -> Iterator[queue.Queue]:
    """What a process that measures the cells prints, line by line; None at its end."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "_gpu_cell.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
    )
    process.stdin.write(json.dumps([asdict(cell) for cell in cells]))
    process.stdin.close()
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=pump, args=(process, lines), daemon=True).start()
    try:
        yield lines
    finally:
        end(process)


def pump(process: subprocess.Popen, lines: queue.Queue) -> None:
    for text in process.stdout:
        lines.put(text)
    lines.put(None)


def end(process: subprocess.Popen) -> None:
    """And what it started, which would keep its memory on the GPU."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(log: IO[str]) -> str:
    """Of what a process said: its last error, rather than a hint after that."""
    log.seek(0)
    lines = [text.strip() for text in log if text.strip()]
    errors = [text for text in lines if re.match(r"[\w.]+(Error|Exception): ", text)]
    return (errors or lines or [""])[-1][:160]


def line(cell: Cell, found: dict) -> str:
    """A row of the table."""
    values = (cell.checkpointing, cell.memory_format, cell.precision, cell.strategy)
    flags = ("compile", "autotune", "loaded", "largest", "profiled")
    usual = ("none", "contiguous", "bf16", "fp32", "auto")
    named = [v for v in values if v not in usual] + [key for key in flags if getattr(cell, key)]
    start = f"| {cell.model} | {', '.join(named) or 'eager'}"
    if "error" in found:
        return f"{start} | {cell.batch} | {found['error']} | | | | |"
    share = f"{found['mfu']:.1%}" if found["mfu"] else "-"
    rates = f"{found['batch']} | {found['images_per_s']:.1f} | {share} | {found['tflops']:.3g}"
    return f"{start} | {rates} | {found['peak_gb']:.1f} | {found['loss']:.4f} |"


# ---------------------------------------------------------------- the other parts


def tests(deadline: float, toy: bool) -> Iterator[dict]:
    """Those marked gpu, and files with others that skip without CUDA; no other file is read."""
    paths = sorted((HERE.parent / "tests").glob("**/test_*.py"))
    files = {str(p): p.read_text() for p in paths}
    marked = [p for p, text in files.items() if "mark.gpu" in text]
    others = [p for p, text in files.items() if "not torch.cuda" in text and p not in marked]
    options = ["-q", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    for name, words in (("marked gpu", ["-m", "gpu", *marked]), ("not marked", others)):
        command = [sys.executable, "-m", "pytest", *options, *words]
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
    text, code = output(command, left) if left >= 5 else ("left out: no time", None)
    tail = "\n".join(text.strip().splitlines()[-40:])  # the planner's table has 38 lines
    print(tail, flush=True)
    yield {"title": title, "exit_code": code, "output": tail}


def output(command: list[str], seconds: float) -> tuple[str, int | None]:
    """What a command prints, and why it ended; its exit code, None if it was stopped."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            cwd=HERE.parent,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdout=out,
            stderr=log,
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
            note = last_line(log) if code else ""
        except subprocess.TimeoutExpired:
            code, note = None, f"stopped after {seconds:.0f} s"
        finally:
            end(process)
        out.seek(0)
        return f"{out.read()}\n{note}", code


if __name__ == "__main__":
    main()
