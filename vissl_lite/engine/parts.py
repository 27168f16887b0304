"""Everything that a training needs, built from a checked config in the right order."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import nn

from vissl_lite.config import Config
from vissl_lite.data.batch import Batch
from vissl_lite.data.choose import make_dataset
from vissl_lite.data.loader import Loader, choose_workers
from vissl_lite.data.sampler import Request, StepSampler
from vissl_lite.engine import build, numerics, weights
from vissl_lite.engine.combinations import check_continued, check_processes, check_same_images
from vissl_lite.engine.flops import training_flops
from vissl_lite.engine.order import build_order
from vissl_lite.engine.scaler import Scaler
from vissl_lite.engine.schedules import Schedules
from vissl_lite.engine.strategy import choose_strategy, stand_in
from vissl_lite.errors import ConfigError
from vissl_lite.layers.norm import convert_sync_batchnorm
from vissl_lite.layers.unit import Checkpointing
from vissl_lite.parallel import wrap
from vissl_lite.parallel.collectives import on_rank_zero, rank, world_size
from vissl_lite.parallel.mesh import SHARDED, Strategy, make_mesh


class Parts:
    """Source, views, model, loss, optimizer and schedules of one training.

    Args:
        config: checked.
        device: where the model lives; "meta" builds without weights.
        chosen: state of a resumed run: what it has chosen before, "numerics" and "way", and its
            "lengths", which stay; the rest is chosen here.

    Attributes:
        dataset: makes the batch of any request.
        steps_per_epoch, total_steps: lengths; `last_step` is earlier with `train.max_steps`.
        local_batch: images per process and step.
        notes: what was inferred, in sentences for the log.

    Raises:
        ConfigError: parts that do not fit together.
    """

    def __init__(self, config: Config, device: torch.device, chosen: dict[str, Any] | None = None):
        self.config, self.device = config, device
        self.notes: list[str] = []
        chosen = chosen or {}
        self._build_data(chosen)
        self._build_model()
        self._choose_numerics(chosen.get("numerics"))
        self._parallelize()
        self._build_optimizer()

    def _build_data(self, chosen: dict[str, Any]) -> None:
        config, train = self.config, self.config.train
        check_processes(config, world_size())
        self.source, views = build.build_source(config), build.build_views(config)
        check_same_images(self.source, "data.source")
        order, notes = build_order(config, self.source)
        self.notes += notes
        self._size = len(order)
        first = self.sampler(0, 1)
        self.local_batch, self.steps_per_epoch = first.local_batch, first.steps_per_epoch
        check_continued(self.lengths, chosen)
        self.total_steps = max(1, round(train.epochs * self.steps_per_epoch))
        self.last_step = min(self.total_steps, train.max_steps or self.total_steps)
        self.workers = choose_workers(config.data.workers, self.device)
        self.dataset, self.way = make_dataset(
            config.data,
            self.source,
            views,
            order,
            config.seed,
            self.device,
            self.workers,
            batch_size=self.local_batch,
            steps=self.last_step,
            chosen=chosen.get("way"),
        )
        self.notes.append(f"views: {self.way}")

    def _build_model(self) -> None:
        config = self.config
        self.strategy: Strategy | None
        self.checkpointing: Checkpointing
        self.strategy, self.checkpointing = choose_strategy(config, self.device)
        self.sharded = self.strategy in SHARDED
        host = self.device if self.device.type == "meta" else torch.device("cpu")
        torch.manual_seed(config.seed)  # the same weights for every strategy and number of ranks
        with torch.device("meta") if self.sharded and rank() > 0 else host:
            self.model = build.build_model(config, self.source.num_classes)
            if not self.sharded:
                self.model.to(self.device)
        with host:
            self.loss = build.build_loss(config, self.model, self.source, self.steps_per_epoch)
        self.loss.to(self.device)
        if config.init:
            self.notes += on_rank_zero(self._init) if self.sharded else self._init()
        if config.train.freeze_trunk:
            self.model.freeze_trunk()
        self._check_needs()

    def _init(self) -> list[str]:
        return weights.load_into(self.model, cast(str, self.config.init))

    def _choose_numerics(self, chosen: dict[str, str] | None) -> None:
        config, device = self.config, self.device
        views = self.example(numerics.IMAGES).to(self.model.mean.device).views
        self.flops_per_image = training_flops(self.model, views)
        layout = config.memory.memory_format
        later = self.sharded and device.type == "cuda"  # it comes to the GPU as shards
        self.measure_shards = later and layout == "auto" and chosen is None
        if chosen:
            self.numerics = numerics.Numerics(**chosen)
            return
        for_now = "contiguous" if self.measure_shards else layout
        self.numerics = numerics.choose(config.precision, for_now, self.model, views, device)

    def _parallelize(self) -> None:
        config, model = self.config, self.model
        wrap.checkpoint_units(model, self.checkpointing)
        if config.parallel.sync_bn != "off" and world_size() > 1:
            size = None if config.parallel.sync_bn == "all" else int(config.parallel.sync_bn)
            convert_sync_batchnorm(model, size)
        if config.compile and self.device.type != "meta":
            wrap.compile_units(model, self.device)
        if self.sharded:
            self._shard()
        self.forward: nn.Module = model.train()
        if self.measure_shards:
            views = self.example(numerics.IMAGES).to(self.device).views
            precision = self.numerics.precision
            self.numerics = numerics.choose(precision, "auto", model, views, self.device)
        numerics.apply_layout(model, self.numerics)
        if self.strategy == "reference_ddp":
            self.forward = wrap.data_parallel(model, self.device, config.layer is not None)
        self._note_choices()

    def _note_choices(self) -> None:
        if self.strategy is not None or self.checkpointing != "none":
            spread = f"strategy {self.strategy or 'none, one process'}"
            self.notes.append(
                f"{spread}, activation checkpointing {self.checkpointing}"
                f"{stand_in(self.config, self.device)}"
            )
        self.notes.append(
            f"precision {self.numerics.precision}, {self.numerics.memory_format}"
            f" ({self.numerics.reason})"
        )

    def _shard(self) -> None:
        config, precision = self.config, self.numerics.precision
        strategy = cast(Strategy, self.strategy)
        wrap.shard(
            self.model,
            make_mesh(strategy, config.parallel.shard_size, self.device),
            param_dtype=None if precision == "fp32" else numerics.DTYPES[precision],
            keep_weights=strategy in ("ddp", "zero2"),
            split_above=config.memory.split_above,
            cpu_offload=config.memory.cpu_offload,
        )

    def _build_optimizer(self) -> None:
        lr, sentence = build.peak_lr(self.config)
        self.notes.append(sentence)
        self.optimizer = build.build_optimizer(self.config, self.model, lr)
        self.schedules = Schedules(
            self.config, self.optimizer, self.loss, lr, self.total_steps, self.steps_per_epoch
        )
        fp16 = self.numerics.precision == "fp16"
        self.scaler = Scaler(fp16, next(self.model.parameters()).device)

    def _check_needs(self) -> None:
        example = self.example(1)
        offered = {"label": example.label_B is not None, "tags": example.tags is not None}
        for need in getattr(self.loss, "needs", ()):
            if not offered[need]:
                raise ConfigError(
                    f"loss: {self.config.loss['name']!r} needs images with {need}, and data.source"
                    f" {self.config.data.source['name']!r} has none"
                )

    def sampler(self, start: int, stop: int) -> StepSampler:
        """The requests of steps start..stop of this process."""
        batch = self.config.train.batch_size
        return StepSampler(self._size, batch, stop, start=start, rank=rank(), world=world_size())

    def loader(self, start: int) -> Loader:
        """The batches from step `start` on."""
        sampler = self.sampler(start, self.last_step)
        return Loader(self.dataset, sampler, self.device, self.workers)

    def example(self, images: int) -> Batch:
        """The first images of the first step, on the CPU."""
        request = Request(0, 0, np.arange(min(images, self.local_batch)))
        return self.dataset.finish(self.dataset[request].to(torch.device("cpu")))

    @property
    def lengths(self) -> dict[str, int]:
        """What a number of steps counts."""
        return {
            "batch_size": self.config.train.batch_size,
            "images": len(self.source),
            "steps_per_epoch": self.steps_per_epoch,
        }

    def state_dict(self) -> dict[str, Any]:
        """The small rest that is equal on all ranks."""
        return {
            "lengths": self.lengths,
            "scaler": self.scaler.state_dict(),
            "numerics": self.numerics.state_dict(),
            "way": self.way.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scaler.load_state_dict(state["scaler"])
