"""Fine-tuning: trainings inside an evaluation, from the weights of its model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from vissl_lite import EVALUATIONS, OPTIMIZERS, SCHEDULES, SOURCES, TRANSFORMS, ConfigError
from vissl_lite.config import Config
from vissl_lite.engine.bench import Bench
from vissl_lite.engine.numerics import Numerics
from vissl_lite.errors import NonFiniteLoss
from vissl_lite.evaluations._finetune import own_randomness, train, write_weights
from vissl_lite.evaluations._finetune_config import start_from, training
from vissl_lite.evaluations.accuracy import Accuracy
from vissl_lite.model import SSLModel
from vissl_lite.parallel.collectives import world_size

CROP_AND_FLIP = ["random_resized_crop", "random_horizontal_flip"]


@EVALUATIONS.register("finetune")
class Finetune:
    """Accuracy after fine-tuning the whole network on 100 %, 10 % and 1 % of the labels.

    Each share is an ordinary training from the model's weights, with logs and checkpoints in
    `RUN/evaluations/finetune/10pct`, where `subset.txt` names its images; stopped or killed, it
    goes on from its last checkpoint when the evaluation is started again in this run. Trunk, pixel
    statistics, precision, memory, strategy and seed are the run's. Needs the memory of a second
    training beside the model.

    Metrics, in [0, 1]: `top1_10pct`, `top5_10pct` on the test images for every share, and `top1`,
    `top5` of the first.

    Defaults are those of SEER: for all labels 35 epochs at 0.0125 with weight decay 1e-4 (Goyal et
    al. 2021, arXiv 2103.01988; that the rate falls after 30 epochs is our choice), for fewer 70
    epochs at 0.05, divided by 10 after 30, without weight decay (VISSL's semi-supervised recipes);
    SGD with Nesterov momentum 0.9.

    Args:
        shares: of the train images of each class; see the source `subset`.
        head: "linear", a new classifier on the trunk; "first_layer", one on the first layer of the
            pre-trained `mlp`, which is trained on: SimCLR v2 (Chen et al. 2020, arXiv 2006.10029,
            section 2).
        epochs: of every share; null: SEER's.
        optimizer: of every share; null: SEER's. Its learning rate is that of 256 images and is
            scaled linearly with the batch.
        schedule: of the learning rate, as a factor; null: SEER's.
        batch_size: images of all processes; a subset with fewer is one batch.
        lr_factors: of the learning rate; of several, the one that is best on `held_out` images of
            the share is taken for a last training on all of it.
        held_out: share of each class that chooses.
        layer_decay: factor of the learning rate from a layer to the one below, as in
            `param_groups`.
        head_lr_scale: factor of the learning rate of the new classifier; SwAV has 20 with 10 % and
            250 with 1 % of the labels (their eval_semisup.py).
        transforms: of the train images, which they bring to `labelled.size`.
        seed: of the subsets.

    Raises:
        ConfigError: a share outside (0, 1], no share or factor, factors and scales that are not
            positive, `held_out` outside (0, 0.9], fewer images than processes, or no `mlp` with a
            hidden layer for "first_layer".
    """

    def __init__(
        self,
        shares: tuple[float, ...] = (1.0, 0.1, 0.01),
        head: Literal["linear", "first_layer"] = "linear",
        epochs: float | None = None,
        optimizer: Annotated[Any, OPTIMIZERS] = None,
        schedule: Annotated[Any, SCHEDULES] = None,
        batch_size: int = 256,
        lr_factors: tuple[float, ...] = (1.0,),
        held_out: float = 0.1,
        layer_decay: float = 1.0,
        head_lr_scale: float = 1.0,
        transforms: Annotated[list, TRANSFORMS] = CROP_AND_FLIP,
        seed: int = 0,
    ):
        _check(shares, "shares", most=1)
        _check(lr_factors, "lr_factors")
        _check((held_out,), "held_out", most=0.9)
        for name, value in (
            ("epochs", 1 if epochs is None else epochs),
            ("batch_size", batch_size),
            ("layer_decay", layer_decay),
            ("head_lr_scale", head_lr_scale),
        ):
            _check((value,), name)
        self.shares, self.head, self.epochs, self.optimizer = shares, head, epochs, optimizer
        self.schedule, self.batch_size, self.lr_factors = schedule, batch_size, lr_factors
        self.held_out, self.layer_decay, self.head_lr_scale = held_out, layer_decay, head_lr_scale
        self.transforms, self.seed = transforms, seed

    def check(self, bench: Bench) -> None:
        """Before hours of training with all labels, what would be said of a small share of them."""
        config = self._config(bench)
        for share in self.shares:
            source = self._source(config, share)
            if len(self.lr_factors) > 1:
                source, held_out = self._parts(source)
                SOURCES.build(held_out, "evaluations.finetune.held_out")
            images = SOURCES.build(source, "evaluations.finetune.shares")
            _batch(self.batch_size, len(images), _percent(share))

    def evaluate(self, bench: Bench) -> dict[str, float]:
        self.check(bench)
        config = self._config(bench)
        bench.files("finetune")
        with own_randomness(bench.device):
            folder = Path(str(config.init)).parent
            job = Job(bench, config, folder, write_weights(bench, config))
            found = {_percent(share): self._share(job, share) for share in self.shares}
        metrics = {f"{key}_{name}": top[key] for name, top in found.items() for key in top}
        return {**found[_percent(self.shares[0])], **metrics}

    def _config(self, bench: Bench) -> Config:
        """What all trainings share; `init` lies in the folder that holds theirs."""
        if bench.config is None or bench.folder is None:
            raise ConfigError("evaluations.finetune: trains in the folder of a run; give it one")
        file = bench.folder / "evaluations" / "finetune" / "pretrained.safetensors"
        return start_from(file, self.head, bench.config, bench)

    def _share(self, job: Job, share: float) -> dict[str, float]:
        """Accuracy on the test images after training on a share of the train images."""
        name, factor = _percent(share), self.lr_factors[0]
        source = self._source(job.config, share)
        if len(self.lr_factors) > 1:
            factor = self._best_factor(job, share, source, name)
        return self._trained(job, share, source, factor, name, job.bench.sources["test"])

    def _best_factor(self, job: Job, share: float, source: dict[str, Any], name: str) -> float:
        """The factor of the learning rate with which held-out images are classified best."""
        part, held_out = self._parts(source)
        judges = SOURCES.build(held_out, "evaluations.finetune.held_out")
        top1 = {
            f: self._tried(job, share, part, f, f"{name}_lr_x{f:g}", judges)
            for f in self.lr_factors
        }
        best = max(top1, key=lambda f: top1[f])
        shown = ", ".join(f"x {f:g}: {value:.4f}" for f, value in top1.items())
        job.bench.note(
            f"finetune {name}: learning rate x {best:g} chosen by top1 on {len(judges):,} held-out"
            f" images ({shown})"
        )
        return best

    def _tried(self, *args: Any) -> float:
        """Top-1 of `_trained`; -inf of a rate with which the loss does not stay finite."""
        try:
            return self._trained(*args)["top1"]
        except NonFiniteLoss:
            return -math.inf

    def _source(self, config: Config, share: float) -> dict[str, Any]:
        source = {"name": "subset", "source": config.labelled.train}
        return {**source, "share": share, "seed": self.seed}

    def _parts(self, source: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Images to train on, and those that choose the learning rate."""
        part = {**source, "source": source, "share": 1 - self.held_out}
        return part, {**part, "rest": True}

    def _trained(
        self, job: Job, share: float, source: dict[str, Any], factor: float, name: str, judges: Any
    ) -> dict[str, float]:
        """Accuracy on `judges` after training on the images of `source`."""
        images = SOURCES.build(source, "evaluations.finetune.shares")
        batch = _batch(self.batch_size, len(images), name)
        config = training(job.config, self, share, source, batch, factor)
        trainer = train(config, job.folder / name, job.weights, images, job.bench)
        return Accuracy().evaluate(job.bench_of(trainer.model, trainer.parts.numerics, judges))


@dataclass
class Job:
    """The fine-tuning of one model.

    Attributes:
        config: what all its trainings share.
        folder: their folders lie in it.
        weights: digest of those that they start from.
    """

    bench: Bench
    config: Config
    folder: Path
    weights: str

    def bench_of(self, model: SSLModel, numerics: Numerics, judges: Any) -> Bench:
        """The bench of a trained model, with other test images."""
        bench = self.bench
        return Bench(
            model,
            bench.labelled,
            {**bench.sources, "test": judges},
            device=bench.device,
            numerics=numerics,
            workers=bench.workers,
            backend=bench.backend,
            note=bench.note,
            stop_point=bench.stop_point,
        )


def _batch(wanted: int, images: int, name: str) -> int:
    """Images per step of all processes: as many as there are, if these are fewer than wanted."""
    batch = min(wanted, images) // world_size() * world_size()
    if batch == 0:
        raise ConfigError(
            f"evaluations.finetune.shares: {name} are {images} images for {world_size()} processes;"
            " take a larger share, or fewer processes"
        )
    return batch


def _percent(share: float) -> str:
    return f"{100 * share:g}pct"


def _check(values: tuple[float, ...], name: str, most: float = math.inf) -> None:
    if not values or not all(0 < value <= most for value in values):
        shown = ", ".join(f"{value:g}" for value in values) or "is empty"
        limit = f" and at most {most:g}" if most < math.inf else ""
        raise ConfigError(f"evaluations.finetune.{name}: {shown}; needs numbers above 0{limit}")
