"""The planner against reality: predicted and measured peak memory of training steps.

    python benchmarks/planner.py                    # CPU: ResNet-50, RegNetY-16GF; 5 minutes
    python benchmarks/planner.py --device cuda      # one GPU: also RegNetY-128GF and 256GF, bf16
    python benchmarks/planner.py --large            # CPU: RegNetY-128GF and 256GF, 11 GiB
    python benchmarks/planner.py --toy              # seconds

Each case is a process of its own: two SimCLR or SwAV steps, one thread. On a CPU measured is what
the steps add to the process at its peak (VmHWM), over the process with everything imported; the C
library maps tensors one by one, otherwise holes in its heap count too. On a GPU it is
torch.cuda.max_memory_allocated. Last result: see RESULTS.md.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SEER = (
    "[{size: 224, count: 2, transforms: [random_resized_crop]},"
    " {size: 96, count: 4, transforms: [random_resized_crop]}]"
)
TWO = "[{{size: {0}, count: 2, transforms: [random_resized_crop]}}]"
HEADS = (
    "[{name: mlp, hidden: [8192, 8192], out_dim: 256, norm: none},"
    " {name: prototypes, num_prototypes: 16000}]"
)
RESNET = ["trunk=resnet", "++trunk.depth=50"]
TINY = [
    "trunk=resnet",
    "++trunk.depth=50",
    "++trunk.width_multiplier=0.03125",
    "++train.batch_size=2",
]
STEPS = 2  # the first makes the optimizer's state
MODES = ("none", "selective", "block")


@dataclass(frozen=True)
class Case:
    """One training to measure: `words` is its command line without the batch."""

    name: str
    words: tuple[str, ...]
    batch: int
    mode: str

    def command(self, device: str) -> list[str]:
        precision = "bf16" if device == "cuda" else "fp32"
        return [
            *self.words,
            f"++train.batch_size={self.batch}",
            f"++memory.activation_checkpointing={self.mode}",
            "dataset=synthetic",
            f"++device={device}",
            f"++precision={precision}",
            "++memory.memory_format=contiguous",
        ]


def cases(device: str, toy: bool, large: bool) -> list[Case]:
    if toy:
        words = (*RESNET, "++trunk.width_multiplier=0.25", f"++data.views={TWO.format(64)}")
        nets, batches = {"ResNet-50/4, 64 px": words}, (8,)
    elif large:
        plain = ("optimizer=sgd", "++optimizer.momentum=0", "++optimizer.weight_decay=0")
        views = f"++data.views={TWO.format(96)}"
        nets = {
            "RegNetY-128GF, 2x96": (*regnet("y_128gf"), views),
            "RegNetY-256GF, 2x96, plain SGD": (*regnet("y_256gf_seer"), *plain, views),
        }
        batches = (2, 4, 8)
    elif device == "cpu":
        nets = {
            f"{name}, 2x{size}": (*trunk, f"++data.views={TWO.format(size)}")
            for name, trunk, size in (
                ("ResNet-50", RESNET, 96),
                ("ResNet-50", RESNET, 160),
                ("RegNetY-16GF", regnet("y_16gf"), 96),
            )
        }
        batches = (4, 8, 16)
    else:
        swav = ("loss=swav", f"++heads={HEADS}", f"++data.views={SEER}")
        nets = {
            "ResNet-50": (*RESNET, *swav),
            "RegNetY-16GF": (*regnet("y_16gf"), *swav),
            "RegNetY-128GF": (*regnet("y_128gf"), *swav),
            "RegNetY-256GF": (*regnet("y_256gf_seer"), *swav),
        }
        batches = (4, 8, 16)
    return [Case(n, tuple(w), b, m) for n, w in nets.items() for m in MODES for b in batches]


def regnet(preset: str) -> list[str]:
    return ["trunk=regnet", f"++trunk.preset={preset}"]


# ---------------------------------------------------------------- in a process of its own


def config_of(words: list[str]):
    from vissl_lite.overrides import compose

    return compose(["config=quickstart", *words])


def measure(words: list[str]) -> int:
    """Bytes that the steps take at their peak."""
    import torch

    from vissl_lite.engine.parts import Parts

    torch.set_num_threads(1)
    others = [word for word in words if "trunk" not in word]
    config, tiny = config_of(words), config_of([*others, *TINY])
    device = torch.device(config.device)
    steps(Parts(tiny, device))  # threads, oneDNN's code, modules imported on first use
    gc.collect()
    start = resident()
    parts = Parts(config, device)
    reset_peak(device)
    steps(parts)
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else peak() - start


def steps(parts) -> None:
    batch = parts.example(parts.config.train.batch_size).to(parts.device)
    for step in range(STEPS):
        one_step(parts, batch, step)


def one_step(parts, batch, step: int) -> None:
    """As the trainer's, which also logs and saves."""
    parts.schedules.apply(step)
    parts.optimizer.zero_grad(set_to_none=True)
    with parts.numerics.autocast(parts.device):
        outputs = parts.forward(batch.views)
    losses = parts.loss(outputs, batch)
    (losses["loss"] if isinstance(losses, dict) else losses).backward()
    del outputs, losses
    parts.optimizer.step()
    parts.model.after_step()


def reset_peak(device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


# ---------------------------------------------------------------- the comparison


def predict(words: list[str]) -> int:
    from vissl_lite.plan.devices import DEVICES
    from vissl_lite.plan.search import make_plan

    config = config_of(words)
    mode = config.memory.activation_checkpointing
    cells = make_plan(config, 1, "h100-80gb", DEVICES["h100-80gb"], checkpointing=[mode]).cells
    return cells[0].cost.peak


def measured_elsewhere(words: list[str]) -> int | str:
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**18), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--measure", json.dumps(words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1][:60]
    return int(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--large", action="store_true", help="on a CPU, what needs a large one")
    parser.add_argument("--network", default="", help="only those whose name has this in it")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure")
    options = parser.parse_args()
    if options.measure:
        print(measure(json.loads(options.measure)))
        return
    rows = []
    print("| network | checkpointing | batch | predicted MiB | measured MiB | error |")
    print("|---|---|---|---|---|---|")
    chosen = [
        c for c in cases(options.device, options.toy, options.large) if options.network in c.name
    ]
    for case in chosen:
        words = case.command(options.device)
        said, found = predict(words), measured_elsewhere(words)
        last = (
            f"{found} | |"
            if isinstance(found, str)
            else f"{found / 2**20:,.0f} | {said / found - 1:+.1%} |"
        )
        print(
            f"| {case.name} | {case.mode} | {case.batch} | {said / 2**20:,.0f} | {last}", flush=True
        )
        rows.append(
            {
                "network": case.name,
                "mode": case.mode,
                "batch": case.batch,
                "predicted": said,
                "measured": found,
            }
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
