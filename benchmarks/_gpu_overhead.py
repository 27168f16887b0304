"""What the trainer costs on a GPU: its step against a hand-written one, batch on the device.

    python benchmarks/_gpu_overhead.py [--cpu-toy]

ResNet-18 on 32 px, where the host can hardly keep the GPU busy, and ResNet-50 on 224 px; both
SimCLR. Demand: ratio at least 0.97.
"""

import argparse
import tempfile
from itertools import repeat
from pathlib import Path

import torch
import torch.nn.functional as F
from _cifar import alternate, report

from vissl_lite.engine.trainer import Trainer
from vissl_lite.overrides import compose
from vissl_lite.plugins import load_entries
from vissl_lite.profile.settings import Settings, for_measuring
from vissl_lite.profile.step import batches

CASES = {
    "ResNet-18, 32 px": ("pretrain/simclr/resnet18_cifar10_200ep", 512),
    "ResNet-50, 224 px": ("pretrain/simclr/resnet50_in1k_100ep", 128),
}
RESIDENT = Settings(images="resident")


def our_trainer(recipe: str, batch: int, toy: bool) -> Trainer:
    words = [f"config={recipe}", "dataset=synthetic", f"train.batch_size={8 if toy else batch}"]
    words += ["data.augment_on=worker", "memory.activation_checkpointing=none"]  # auto measures
    words += ["device=cpu", "precision=fp32", "trunk.width_multiplier=0.125"] if toy else []
    config, _ = for_measuring(compose(words), RESIDENT)
    return Trainer(config, Path(tempfile.mkdtemp()))


def hand_written(trainer: Trainer, views: torch.Tensor):
    """The loop that one would write for this one case, with nothing around it."""
    model, optimizer = trainer.model, trainer.optimizer
    target = torch.arange(2 * views.shape[1], device=views.device).roll(views.shape[1])
    while True:
        crops = views.flatten(0, 1).permute(0, 3, 1, 2)
        x = crops.to(torch.float32, memory_format=model.memory_format)
        x = x.sub_(model.mean).div_(model.std)
        with trainer.parts.numerics.autocast(trainer.device):
            z = model.heads[0](model.trunk(x, (model.layer,))[model.layer].mean((2, 3)))
        z = F.normalize(z.float(), dim=1)
        logits = (z @ z.T / trainer.loss.temperature).fill_diagonal_(-torch.inf)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits, target).backward()
        optimizer.step()
        yield


def our_steps(trainer: Trainer, images):
    for batch in images:
        trainer.train_step(batch)
        if trainer.at_log_step:
            trainer.meters.flush()
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu-toy", action="store_true")
    toy = parser.parse_args().cpu_toy
    load_entries()
    for name, (recipe, batch) in list(CASES.items())[: 1 if toy else None]:
        trainer = our_trainer(recipe, batch, toy)
        images = next(batches(trainer, RESIDENT))
        ours = our_steps(trainer, repeat(images))
        theirs = hand_written(trainer, images.views[0])
        rates = alternate(
            lambda ours=ours: next(ours),
            lambda theirs=theirs: next(theirs),
            rounds=3 if toy else 9,
            steps=2 if toy else 20,
            batch=len(images),
        )
        report(name, *rates, other="hand-written loop")


if __name__ == "__main__":
    main()
