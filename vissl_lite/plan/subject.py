"""What a plan is about: the model and loss of a config, without images and without weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)

from vissl_lite import OPTIMIZERS
from vissl_lite.config import Config
from vissl_lite.engine import build
from vissl_lite.engine.flops import training_flops
from vissl_lite.errors import ConfigError
from vissl_lite.layers.norm import convert_sync_batchnorm
from vissl_lite.layers.unit import Checkpointing
from vissl_lite.parallel import wrap
from vissl_lite.plan.cache import cached
from vissl_lite.plan.fakes import fake_views, fake_world
from vissl_lite.plan.layout import Layout, layout_of, modules_of
from vissl_lite.plan.trace import Trace, trace_step

IMAGES, STEPS = 1_000_000, 1_000  # of a data set that is not opened; no size follows from them


class Subject:
    """The model and loss of a config.

    Attributes:
        sizes: (crops, pixels) of each view group.
        layout: how the parameters divide into groups.

    Raises:
        ConfigError: parts that do not fit together.
    """

    def __init__(self, config: Config, precision: str, world: int, fresh: bool = False):
        self.config, self.precision, self.world, self.fresh = config, precision, world, fresh
        build.build_views(config)
        self.sizes = [(group.count, group.size) for group in config.data.views]
        model, _ = self.build("none")
        self.layout: Layout = layout_of(model, config.memory.split_above)

    def build(self, checkpointing: Checkpointing) -> tuple[Any, nn.Module]:
        """A new model and loss on the meta device."""
        config = self.config
        source = _source(config)
        with torch.device("meta"):
            model = build.build_model(config, source.num_classes)
            loss = build.build_loss(config, model, source, STEPS)
        if config.train.freeze_trunk:
            model.freeze_trunk()
        wrap.checkpoint_units(model, checkpointing)
        if config.parallel.sync_bn != "off" and self.world > 1:
            convert_sync_batchnorm(model)  # the size of the group changes no tensor
        return model, loss

    def flops(self) -> float:
        """Of a training step per image, without recomputation."""
        model, _ = self.build("none")
        views = fake_views(self.sizes, 1, "meta")
        return training_flops(model, views)

    def trace(self, checkpointing: Checkpointing, images: int, gathered: bool) -> Trace:
        """One forward and backward pass of so many images on each of `world` processes."""
        config = self.config
        question = {
            "model": [config.trunk, config.heads, config.loss, config.layer, config.pool],
            "views": self.sizes,
            "freeze": config.train.freeze_trunk,
            "sync_bn": config.parallel.sync_bn != "off",
            "split": config.memory.split_above if gathered else None,
            "step": [self.precision, self.world, checkpointing, images, gathered],
        }
        return cached(question, lambda: self._trace(checkpointing, images, gathered), self.fresh)

    def _trace(self, checkpointing: Checkpointing, images: int, gathered: bool) -> Trace:
        with fake_world(self.world):
            model, loss = self.build(checkpointing)
            groups = modules_of(model, self.config.memory.split_above)
            step = (self.sizes, images, self.precision)
            try:
                return trace_step(model, loss, groups, *step, gathered=gathered)
            except (DataDependentOutputException, DynamicOutputShapeException) as error:
                raise ConfigError(
                    f"plan: model or loss {self.config.loss['name']!r} looks at values ({error}),"
                    " of which a plan has none; set parallel.strategy and"
                    " memory.activation_checkpointing yourself"
                ) from error


def _source(config: Config) -> Any:
    """The source, opened only where a head or the loss takes its number of classes."""
    try:
        with torch.device("meta"):
            model = build.build_model(config, None)
            build.build_loss(config, model, Unopened(), STEPS)
    except ConfigError:
        return _opened(config)
    return Unopened()


def _opened(config: Config) -> Any:
    try:
        return build.build_source(config)
    except ConfigError as error:
        hint = "heads: a plan needs no data set where the last head has its out_dim"
        raise ConfigError(*error.problems, hint) from None


class Unopened:
    """Stands for a data set of which nothing needs to be known."""

    num_classes = None

    def __len__(self) -> int:
        return IMAGES


def optimizer_ratios(config: Config, sharded: bool) -> tuple[float, float]:
    """Bytes of state, and of what a step takes for a moment, per byte of parameters.

    Found by a step of the real optimizer on one small matrix.
    """
    p = nn.Parameter(torch.ones(256, 256))
    groups = [{"params": [p], "lr": 0.1, "weight_decay": 0.1, "lars_exclude": False}]
    optimizer = OPTIMIZERS.build(config.optimizer, "optimizer", params=groups)
    p.grad = torch.ones_like(p)
    optimizer.step()
    tensors = [t for s in optimizer.state.values() for t in s.values() if torch.is_tensor(t)]
    state = sum(t.nbytes for t in tensors if t.numel() == p.numel()) / p.nbytes
    decays = (
        config.optimizer["name"] == "sgd" and OPTIMIZERS.check(config.optimizer)["weight_decay"]
    )
    return state, float(bool(sharded and decays))  # torch's foreach SGD adds wd p to a copy of g
