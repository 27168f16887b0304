"""Records as short text: numbers with units, aligned, for people."""

import math
from typing import Any, NamedTuple

_ELSEWHERE = ("kind", "name", "step", "total_steps", "epoch", "epochs", "eta_s")


class Field(NamedTuple):
    """`loss 6.123` or `31.2 GB`: a number and what stands before or after it."""

    label: str
    value: str
    unit: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in self if part)


def number(value: Any) -> str:
    """Four significant digits: 6.123, 0.4321, 12,345, 1.200e-05; what is no float as it is."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3e}"
    return f"{value:,.{max(3 - math.floor(math.log10(abs(value))), 0)}f}"


def large(count: float) -> str:
    """28.3 M, 1.27 B: three significant digits."""
    for letter, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return f"{count:.0f}"


def duration(seconds: float) -> str:
    """0:42, 12:05, 3:07:09, 2 d 04:11."""
    if not math.isfinite(seconds):
        return "?"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24:02}:{m:02}"
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def fields(record: dict[str, Any]) -> list[Field]:
    """What a training record measured, in a fixed order, the loss's own metrics last."""
    known = {
        "loss": lambda x: Field("loss", f"{number(x):>6}"),
        "lr": lambda x: Field("lr", f"{number(x):>9}"),
        "images_per_s": lambda x: Field("", f"{x:7,.0f}" if x >= 10 else f"{x:7.2f}", "images/s"),
        "data_wait": lambda x: Field("data wait", f"{100 * x:3.0f}", "%"),
        "memory_gb": lambda x: Field("", f"{x:5.1f}", "GB"),
    }
    found = [show(record[key]) for key, show in known.items() if record.get(key) is not None]
    return found + metrics(record, skip=tuple(known))


def metrics(record: dict[str, Any], skip: tuple[str, ...] = ()) -> list[Field]:
    """Every other entry of a record, under its own name."""
    return [
        Field(key, number(value))
        for key, value in record.items()
        if key not in _ELSEWHERE and key not in skip
    ]


def epoch(record: dict[str, Any]) -> str:
    """`epoch   3.95/100`, or nothing."""
    if "epoch" not in record:
        return ""
    epochs = record.get("epochs")
    done = f"{record['epoch']:.2f}"
    return f"epoch {done}" if epochs is None else f"epoch {done:>{len(f'{epochs}.00')}}/{epochs:g}"


def step(record: dict[str, Any]) -> str:
    """`step  1,234/31,200`, right-aligned where the total is known."""
    done, total = f"{record['step']:,}", record.get("total_steps")
    return f"step {done}" if total is None else f"step {done:>{len(f'{total:,}')}}/{total:,}"


def introduction(record: dict[str, Any]) -> list[str]:
    """The run's name, then one line each for folder, machine, length and point of resumption."""
    r = {"recipe": "", "run_dir": "", "device": "", "precision": "", "resumed_step": 0, **record}
    machine = [r["device"], r["precision"]]
    if "world_size" in r:
        machine.insert(0, _count(r["world_size"], "process", "processes"))
    if "params" in r:
        machine.append(f"{large(r['params'])} parameters")
    length = []
    if "total_steps" in r:
        length.append(_count(r["total_steps"], "step", "steps"))
    if "global_batch" in r:
        length.append(f"of {_count(r['global_batch'], 'image', 'images')}")
    if "epochs" in r and "steps_per_epoch" in r:
        plural = "epoch" if r["epochs"] == 1 else "epochs"
        length.append(f"({r['epochs']:g} {plural} of {r['steps_per_epoch']:,} steps)")
    resumed = f"resumed at step {r['resumed_step']:,}" if r["resumed_step"] else ""
    lines = [r["recipe"], str(r["run_dir"]), ", ".join(filter(None, machine)), " ".join(length)]
    return [line for line in [*lines, resumed] if line]


def printable(text: str) -> str:
    """Without escape sequences and the like: a file's name must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def _count(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"
