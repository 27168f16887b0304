"""Everything that a training needs, built from a checked config in the right order."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vissl_lite.config import Config
from vissl_lite.data.batch import Batch
from vissl_lite.data.loader import Loader, ViewDataset, choose_workers
from vissl_lite.data.sampler import Order, Request, StepSampler
from vissl_lite.engine import build, numerics, weights
from vissl_lite.engine.flops import training_flops
from vissl_lite.errors import ConfigError
from vissl_lite.layers.norm import convert_sync_batchnorm
from vissl_lite.parallel.collectives import is_distributed, rank, world_size

_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_LOCAL_BUFFERS: dict[str, Any] = {  # torch 2.15 renamed it
    "forward_sync_buffers" if _RENAMED else "broadcast_buffers": False
}


class Parts:
    """Source, views, model, loss, optimizer and schedules of one training.

    Args:
        config: checked.
        device: where the model lives; "meta" builds without weights.
        chosen: precision and memory format of the run that is resumed; None to choose them.

    Attributes:
        dataset: makes the batch of any request.
        steps_per_epoch, total_steps: lengths; `last_step` is earlier with `train.max_steps`.
        local_batch: images per process and step.
        notes: what was inferred, in sentences for the log.

    Raises:
        ConfigError: parts that do not fit together.
    """

    def __init__(self, config: Config, device: torch.device, chosen: dict[str, str] | None = None):
        self.config, self.device = config, device
        self.notes: list[str] = []
        self._build_data()
        self._build_model()
        self._choose_numerics(chosen)
        self._build_optimizer()

    def _build_data(self) -> None:
        config, train = self.config, self.config.train
        self.source = build.build_source(config)
        order = Order.of(self.source, config.seed)
        self.dataset = ViewDataset(self.source, build.build_views(config), order, config.seed)
        self._size = len(order)
        first = self.sampler(0, 1)
        self.local_batch, self.steps_per_epoch = first.local_batch, first.steps_per_epoch
        self.total_steps = max(1, round(train.epochs * self.steps_per_epoch))
        self.last_step = min(self.total_steps, train.max_steps or self.total_steps)
        if self.local_batch % train.accumulate:
            raise ConfigError(
                f"train.accumulate: {self.local_batch} images per process do not divide into"
                f" {train.accumulate} micro-batches; take a divisor of {self.local_batch}"
            )

    def _build_model(self) -> None:
        config = self.config
        torch.manual_seed(config.seed)  # the same weights on every rank
        with self.device if self.device.type == "meta" else torch.device("cpu"):
            self.model = build.build_model(config, self.source.num_classes)
            self.loss = build.build_loss(config, self.model, self.source, self.steps_per_epoch)
        if config.init:
            self.notes += weights.load_into(self.model, Path(config.init))
        if config.train.freeze_trunk:
            self.model.freeze_trunk()
        self._check_needs()
        if config.parallel.sync_bn != "off" and is_distributed():
            size = None if config.parallel.sync_bn == "all" else int(config.parallel.sync_bn)
            convert_sync_batchnorm(self.model, size)
        self.model.to(self.device).train()
        self.loss.to(self.device)

    def _choose_numerics(self, chosen: dict[str, str] | None) -> None:
        config, views = self.config, self.example(numerics.IMAGES).to(self.device).views
        self.numerics = (
            numerics.Numerics(**chosen)
            if chosen
            else numerics.choose(
                config.precision, config.memory.memory_format, self.model, views, self.device
            )
        )
        numerics.apply_layout(self.model, self.numerics)
        self.flops_per_image = training_flops(self.model, views)
        self.notes.append(
            f"precision {self.numerics.precision}, {self.numerics.memory_format}"
            f" ({self.numerics.reason})"
        )

    def _build_optimizer(self) -> None:
        lr, sentence = build.peak_lr(self.config)
        self.notes.append(sentence)
        self.optimizer = build.build_optimizer(self.config, self.model, lr)
        self.schedules = build.Schedules(
            self.config, self.optimizer, self.loss, lr, self.total_steps, self.steps_per_epoch
        )
        fp16 = self.numerics.precision == "fp16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=fp16)

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
        workers = choose_workers(self.config.data.workers, self.device)
        return Loader(self.dataset, self.sampler(start, self.last_step), self.device, workers)

    def example(self, images: int) -> Batch:
        """The first images of the first step, on the CPU."""
        return self.dataset[Request(0, 0, np.arange(min(images, self.local_batch)))]

    def wrapped(self) -> nn.Module:
        """The model as the loop calls it: compiled if asked, averaging gradients over processes."""
        if self.config.compile:
            self.model.compile()
        if not is_distributed():
            return self.model
        return DistributedDataParallel(
            self.model,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            find_unused_parameters=self.config.layer is not None,
            **_LOCAL_BUFFERS,
        )

    def state_dict(self) -> dict[str, Any]:
        """What is equal on all ranks."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "numerics": self.numerics.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
