"""A training inside an evaluation: its weights, its folder, and how it is stopped."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import vissl_lite
from vissl_lite import TRUNKS
from vissl_lite.config import Config
from vissl_lite.engine import weights_file
from vissl_lite.engine.journal import save_config
from vissl_lite.engine.trainer import Trainer
from vissl_lite.hooks.base import Hook
from vissl_lite.io import replace_text
from vissl_lite.parallel.collectives import on_rank_zero

if TYPE_CHECKING:
    from vissl_lite.engine.bench import Bench

TOLD_EVERY = 60.0  # seconds between sentences on how far a training is
IDENTITY = "identity.txt"
PIECE = 1 << 24  # bytes of a file read at a time


def write_weights(bench: Bench, config: Config) -> str:
    """Writes the weights that `config.init` names: trunk and, before a classifier, the first head.

    All ranks call it together.

    Returns:
        A digest of them.
    """
    file, kept = Path(str(config.init)), bench.model.heads[: len(config.heads) - 1]
    tensors = {f"trunk.{name}": t for name, t in bench.model.trunk.state_dict().items()}
    tensors |= {f"heads.{name}": t for name, t in kept.state_dict().items()}
    trunk = json.dumps(TRUNKS.check(config.trunk, "trunk"))
    weights_file.write(tensors, file, {"trunk": trunk, "vissl_lite": vissl_lite.__version__})
    return on_rank_zero(lambda: _digest(file))


def train(config: Config, folder: Path, weights: str, images: Any, bench: Bench) -> Trainer:
    """Trains what `config` describes in `folder`, or goes on with it there.

    What lies there of another config, other weights or another number of images is removed.

    Args:
        weights: digest of those that `config.init` names.
        images: a `Subset`; listed in the folder unless they are all that there are.

    Raises:
        SystemExit: a signal stopped it, and nothing around it has a word to say.
        Exception: whatever `bench.stop_point` raises; a checkpoint is written before.
    """
    on_rank_zero(lambda: _prepare(config, folder, weights, images))
    trainer = Trainer(config, folder)
    _announce(trainer, len(images), bench)
    overseer = Overseer(bench, folder.name)
    trainer.hooks = {"overseer": overseer, **trainer.hooks}
    trainer.fit()
    if overseer.stopped is not None:
        raise overseer.stopped
    if not trainer.finished:
        _pass_on_stop(trainer, bench)
    return trainer


class Overseer(Hook):
    """Ends a training when the evaluation around it is to stop, and says how far it is."""

    def __init__(self, bench: Bench, name: str):
        self.bench, self.name = bench, name
        self.told_at = time.monotonic()
        self.stopped: Exception | None = None

    def on_log(self, trainer: Trainer, record: dict[str, Any]) -> None:
        if time.monotonic() - self.told_at > TOLD_EVERY:
            self.told_at = time.monotonic()
            epochs, minutes = trainer.config.train.epochs, record["eta_s"] / 60
            self.bench.note(
                f"finetune {self.name}: epoch {record['epoch']:.1f} of {epochs:g},"
                f" loss {record['loss']:.4f}, {minutes:.0f} min to go"
            )

    def after_step(self, trainer: Trainer) -> None:
        if trainer.at_log_step:
            try:
                self.bench.stop_point()
            except Exception as error:  # raised again once a checkpoint is written
                self.stopped = error
                trainer.request_stop("the evaluation is to stop")


@contextmanager
def own_randomness(device: torch.device) -> Iterator[None]:
    """The generators of torch are afterwards as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def _prepare(config: Config, folder: Path, weights: str, images: Any) -> None:
    """Leaves in the folder what belongs to this training, and nothing else."""
    tree = {**asdict(config), "resume": False}
    own = {**tree, "init": weights, "images": len(images)}
    text = json.dumps(own, sort_keys=True, default=str)
    identity = hashlib.sha256(text.encode()).hexdigest()
    file = folder / IDENTITY
    if file.is_file() and file.read_text() == identity:
        return
    shutil.rmtree(folder, ignore_errors=True)
    save_config(tree, folder)
    if len(images) < len(images.source):
        replace_text(folder / "subset.txt", "".join(f"{name}\n" for name in images.names()))
    replace_text(file, identity)


def _announce(trainer: Trainer, images: int, bench: Bench) -> None:
    done = f"goes on after {trainer.step:,} of " if trainer.step else ""
    bench.note(
        f"finetune {trainer.run_dir.name}: {images:,} images in batches of"
        f" {trainer.config.train.batch_size}, {done}{trainer.parts.last_step:,} steps,"
        f" in {trainer.run_dir}"
    )


def _pass_on_stop(trainer: Trainer, bench: Bench) -> None:
    """Tells the training around this one, if there is one, of the signal; ends the process else."""
    bench.note(f"evaluation {trainer.stop.reason}; go on with: vissl-lite resume={bench.folder}")
    received = trainer.stop.received
    if received is not None and callable(signal.getsignal(received)):
        signal.raise_signal(received)
    bench.stop_point()
    raise SystemExit(trainer.exit_code)


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while piece := content.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()
