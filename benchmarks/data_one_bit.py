"""Whether runs of one seed with either back end differ by more than a flipped bit makes them.

    python benchmarks/data_one_bit.py [--steps 9] [--batches 24] [--per-class 1500]

SimCLR on CIFAR-10 as in `data_meaning.py --only knn`. First the crops of random batches of both
epochs, in memory against the reference; then the loss of the first steps of the reference, in
memory, and of the reference again with the lowest bit of one value of each batch flipped.
Archives: `$VISSL_LITE_DATA`.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from _data_cells import about, unpack_cifar

from vissl_lite.data.sampler import Request
from vissl_lite.engine.trainer import Trainer
from vissl_lite.overrides import compose

BATCH = 128
RECIPE = ["config=pretrain/simclr/resnet18_cifar10_200ep", "hooks=[]", "loggers=[]"]
RECIPE += ["evaluations=[]", "device=cpu", "precision=fp32", "data.workers=0", "train.epochs=2"]
RECIPE += ["memory.memory_format=channels_last", "trunk.width_multiplier=0.25"]
RECIPE += [f"train.batch_size={BATCH}"]
REFERENCE, MEMORY = "data.backend=reference", "data.in_memory=true"


def trainer(folder: Path, word: str) -> Trainer:
    os.environ["CIFAR10"] = str(folder)
    return Trainer(compose([*RECIPE, word]), Path(tempfile.mkdtemp(dir=folder)))


def stream(folder: Path, count: int) -> str:
    """What the crops of so many batches have in common."""
    one, other = (trainer(folder, word).parts.dataset for word in (REFERENCE, MEMORY))
    starts = np.random.default_rng(0).integers(0, len(one.order) - BATCH, count)
    requests = [Request(0, k % 2, start + np.arange(BATCH)) for k, start in enumerate(starts)]
    apart = torch.cat([(other[r].views[0].short() - one[r].views[0]).flatten() for r in requests])
    return (
        f"{len(apart):,} values, {(apart == 0).double().mean():.2%} equal, mean difference"
        f" {apart.double().mean():+.4f}, mean |difference| {apart.abs().double().mean():.4f}"
    )


def losses(folder: Path, word: str, steps: int, flip: bool = False) -> list[float]:
    """Of the first steps."""
    run, found = trainer(folder, word), []
    for batch in islice(run.parts.loader(0), steps):
        if flip:
            batch.views[0].view(-1)[0] ^= 1
        run.train_step(batch)
        means, _ = run.meters.flush()
        found.append(means["loss"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--per-class", type=int, default=1500, help="training images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(about())
    with tempfile.TemporaryDirectory() as kept:
        folder = unpack_cifar(Path(kept), options.per_class, 0)
        print(stream(folder, options.batches), flush=True)
        for name, *how in (("reference", REFERENCE), ("memory", MEMORY), ("one bit", REFERENCE)):
            found = losses(folder, *how, options.steps, name == "one bit")
            print(f"{name:10}" + "".join(f"{loss:9.4f}" for loss in found), flush=True)


if __name__ == "__main__":
    main()
