"""Measures cells of `gpu_steps.py` in a process of its own: a JSON line per cell.

Cells that come to one process differ only in what a built model can change; compiled ones come last
of it.
"""

import dataclasses
import gc
import json
import sys
import tempfile
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import torch

from vissl_lite.data.batch import Batch
from vissl_lite.engine.flops import peak_flops
from vissl_lite.engine.numerics import apply_layout
from vissl_lite.engine.scaler import Scaler
from vissl_lite.engine.trainer import Trainer
from vissl_lite.overrides import compose
from vissl_lite.parallel.wrap import checkpoint_units, compile_units
from vissl_lite.plugins import load_entries
from vissl_lite.profile import memory
from vissl_lite.profile.clock import PHASES, Clock, take_steps
from vissl_lite.profile.settings import Settings, for_measuring
from vissl_lite.profile.step import batches, measure

STEPS, WARMUP = 5, 3
FEW, FEW_WARMUP = 3, 1  # at the largest batch, which the search has been at
LARGEST = 1024  # images per GPU that are tried
TOY_LIMIT = 6  # images that "fit" on a CPU, so that the search ends there
RECIPES = {
    "y_16gf": "pretrain/seer/regnety_32gf",  # SEER's head for the smaller networks
    "y_128gf": "pretrain/seer/regnety_128gf",
}
WORDS = [  # of the one machine that there is; the schedule's start hardly moves the weights
    *("parallel.sync_bn=off", "loss.freeze_prototypes_steps=0", "data.workers=auto"),
    "dataset=synthetic",
]
TOY = [
    *("device=cpu", "trunk.preset=null", "trunk.depth=4", "trunk.w_0=16", "trunk.w_a=8"),
    *("trunk.w_m=2", "trunk.group_width=8", "trunk.se_ratio=0.25"),
    "heads=[{name: mlp, hidden: [32], out_dim: 16}, {name: prototypes, num_prototypes: 20}]",
    "data.views=[{size: 32, count: 2, transforms: [random_resized_crop]},"
    " {size: 16, count: 4, transforms: [random_resized_crop]}]",
    "data.source.size=36",
]


@dataclass(frozen=True)
class Cell:
    """One line of the table.

    Attributes:
        model: preset of the trunk `regnet`.
        batch: images.
        strategy: "auto" leaves the model of this one process as it is.
        autotune: cuDNN times its algorithms for each shape.
        loaded: images come from the loader, not from the device.
        largest: instead of `batch`, the largest that fits; only with `strategy` "auto".
        profiled: list the most expensive operators too.
    """

    model: str
    batch: int
    checkpointing: str = "none"
    memory_format: str = "contiguous"
    precision: str = "bf16"
    strategy: str = "auto"
    compile: bool = False
    autotune: bool = False
    loaded: bool = False
    largest: bool = False
    profiled: bool = False
    toy: bool = False

    @property
    def process(self) -> tuple:
        """Cells that share it can share a process; cuDNN keeps what it chose for a shape."""
        return self.model, self.strategy, self.loaded, self.autotune

    def words(self) -> list[str]:
        recipe = RECIPES.get(self.model, "pretrain/seer/regnety_256gf")
        given = [
            *(f"config={recipe}", *WORDS, f"train.batch_size={self.batch}"),
            *(f"precision={self.precision}", f"parallel.strategy={self.strategy}"),
            f"memory.memory_format={self.memory_format}",
            f"memory.activation_checkpointing={self.checkpointing}",  # or the planner looks for it
            f"data.augment_on={'auto' if self.loaded else 'worker'}",  # auto compiles and measures
        ]
        return given + (TOY if self.toy else [f"trunk.preset={self.model}"])


def main() -> None:
    cells = [Cell(**cell) for cell in json.load(sys.stdin)]
    load_entries()
    settings = Settings(STEPS, WARMUP, images="source" if cells[0].loaded else "resident")
    config, _ = for_measuring(compose(cells[0].words()), settings)
    memory.reset_peak(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    Trainer.autotune = cells[0].autotune
    trainer = Trainer(config, Path(tempfile.mkdtemp()))
    print("ROW {}", flush=True)  # built
    for cell in cells:
        try:
            set_up(trainer, cell)
            row = measured(trainer, cell, settings)
        except Exception as error:
            row = {"error": "out of memory" if is_oom(error) else first_line(error)}
        print("ROW " + json.dumps(row), flush=True)
        release(trainer)


def set_up(trainer: Trainer, cell: Cell) -> None:
    """Makes of the built model the one of the cell; momenta laid out otherwise would cost time."""
    trainer.optimizer.state.clear()
    checkpoint_units(trainer.model, cell.checkpointing)
    numerics = dataclasses.replace(
        trainer.parts.numerics, precision=cell.precision, memory_format=cell.memory_format
    )
    trainer.parts.numerics = numerics
    trainer.parts.scaler = Scaler(cell.precision == "fp16", trainer.device)
    apply_layout(trainer.model, numerics)
    if cell.compile:
        compile_units(trainer.model, trainer.device)


def measured(trainer: Trainer, cell: Cell, settings: Settings) -> dict:
    """Rates and memory at the cell's batch, at what fits of it, or at the largest."""

    def fitting(batch: int) -> bool:
        return batch <= TOY_LIMIT if cell.toy else fits(trainer, batch)

    batch = cell.batch
    if cell.largest or not fitting(batch):
        if cell.strategy != "auto":  # FSDP takes no step after one that failed
            return {"error": "out of memory"}
        batch = search(fitting, batch)
    if batch == 0:
        return {"error": "out of memory with one image"}
    images = batches(trainer, settings) if cell.loaded else repeat(resident(trainer, batch))
    steps, warmup = (FEW, FEW_WARMUP) if cell.largest else (STEPS, WARMUP)
    take_steps(trainer, images, Clock(trainer.device), warmup)
    row = rates(trainer, images, batch, steps)
    if cell.profiled:
        found = measure(trainer, images, Settings(steps=2, warmup=1), 0)
        row |= {"operators": found["operators"], "memory": found["memory"]}
    return row


def rates(trainer: Trainer, images, batch: int, steps: int) -> dict:
    """Of some steps: images/s, share of the device's peak, peak memory, phases, mean loss."""
    memory.reset_peak(trainer.device)
    trainer.meters.flush()
    clock = Clock(trainer.device)
    take_steps(trainer, images, clock, steps)
    times = clock.steps()
    mean = sum(sum(step.values()) for step in times) / steps
    flops = trainer.parts.flops_per_image * batch / mean
    peak = peak_flops(trainer.device)
    return {
        "batch": batch,
        "images_per_s": batch / mean,
        "tflops": flops / 1e12,
        "mfu": flops / peak if peak else None,
        "peak_gb": memory.peak(trainer.device) / 1e9,
        "loss": trainer.meters.flush()[0]["loss"],
        "ms": {p: 1e3 * sum(step[p] for step in times) / steps for p in PHASES},
    }


def resident(trainer: Trainer, images: int) -> Batch:
    """Noise on the device, the same for every cell."""
    generator = torch.Generator().manual_seed(0)
    views = []
    for view in trainer.parts.example(1).views:
        noise = torch.randint(256, (images, *view.shape[2:]), generator=generator)
        noise = noise.to(torch.uint8).to(trainer.device)
        views.append(torch.stack([noise.roll(v, dims=1) for v in range(len(view))]))
    return Batch(views, torch.arange(images, device=trainer.device))


def search(fits, start: int) -> int:
    """The largest batch that fits, to a sixteenth: doubling or halving, then bisection."""
    good, bad = (start, 2 * start) if fits(start) else (0, start)
    while good and good < LARGEST and fits(bad):
        good, bad = bad, 2 * bad
    while bad - good > max(1, good // 16):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def fits(trainer: Trainer, batch: int) -> bool:
    """Whether a step on so many images has the memory it needs."""
    try:
        trainer.train_step(resident(trainer, batch))
        torch.cuda.synchronize()
    except RuntimeError as error:
        if not is_oom(error):
            raise
        return False
    finally:
        release(trainer)
    return True


def is_oom(error: Exception) -> bool:
    words = ("ALLOC_FAILED", "out of memory")  # of cuBLAS and cuDNN, whose errors have no class
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]


def release(trainer: Trainer) -> None:
    """Gives the memory of a step, failed or not, back to the device."""
    trainer.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    if trainer.device.type == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
