"""From the checked config to the parts of a run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from vissl_lite import HEADS, HOOKS, LOSSES, OPTIMIZERS, SOURCES, TRUNKS
from vissl_lite.config import Config
from vissl_lite.data.views import Views
from vissl_lite.engine.param_groups import param_groups
from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.model import EMBEDDING, LOGITS, SSLModel


def build_source(config: Config) -> Any:
    return SOURCES.build(config.data.source, "data.source")


def build_views(config: Config) -> Views:
    if not config.data.views:
        raise ConfigError(
            "data.views: no views; choose a set, such as augment=simclr, or list them"
        )
    return Views.build([asdict(group) for group in config.data.views])


def build_model(config: Config, num_classes: int | None) -> SSLModel:
    """Trunk and heads; each width follows from the part before it.

    Args:
        num_classes: of the source; the `linear` head takes it when it is given none.

    Raises:
        ConfigError: a layer that the trunk does not have, or a scorer that is not the last head.
    """
    trunk = TRUNKS.build(config.trunk, "trunk")
    layer = config.layer or list(trunk.widths)[-1]
    if layer not in trunk.widths:
        close = did_you_mean(layer, trunk.widths) or ";"
        raise ConfigError(
            f"layer: the trunk has no {layer!r}{close} it has {', '.join(trunk.widths)}"
        )
    heads, width = [], trunk.widths[layer]
    for i, head_config in enumerate(config.heads):
        if heads and getattr(heads[-1], "scorer", False):
            raise ConfigError(f"heads[{i}]: follows a head that gives logits; logits come last")
        head = HEADS.build(head_config, f"heads[{i}]", in_dim=width, num_classes=num_classes)
        heads.append(head)
        width = head.out_dim
    return SSLModel(
        trunk,
        heads,
        mean=config.data.mean,
        std=config.data.std,
        layer=layer,
        pool=config.pool,
    )


def embed_dim(model: SSLModel) -> int:
    """Width of `Outputs.embedding`."""
    plain = [head for head in model.heads if not getattr(head, "scorer", False)]
    return plain[-1].out_dim if plain else model.trunk.widths[model.layer]  # pyright: ignore


def layer_widths(model: SSLModel) -> dict[str, int]:
    """Width of everything that `SSLModel.layer_features` gives."""
    widths: dict[str, int] = {**model.trunk.widths, EMBEDDING: embed_dim(model)}  # pyright: ignore
    if model.scorer is not None:
        widths[LOGITS] = model.scorer.out_dim  # pyright: ignore
    return widths


def build_loss(config: Config, model: SSLModel, source: Any, steps_per_epoch: int) -> nn.Module:
    """The loss, checked against what the source and the model offer.

    Raises:
        ConfigError: it needs scores, and the heads do not end with a scorer.
    """
    loss = LOSSES.build(
        config.loss,
        "loss",
        embed_dim=embed_dim(model),
        num_samples=len(source),
        num_classes=source.num_classes,
        steps_per_epoch=steps_per_epoch,
    )
    if getattr(loss, "needs_scores", False) and model.scorer is None:
        raise ConfigError(
            f"loss: {config.loss['name']} needs scores; end the heads with a scorer, 'linear' or"
            " 'prototypes'"
        )
    if getattr(loss, "needs_teacher", False):
        model.add_teacher()
    return loss


def peak_lr(config: Config) -> tuple[float, str]:
    """The peak learning rate and the sum that led to it, for the log."""
    base = OPTIMIZERS.check(config.optimizer, "optimizer")["lr"]
    scaling, batch = config.lr_scaling, config.train.batch_size
    ratio = batch / scaling.reference_batch
    if scaling.rule == "none":
        return base, f"learning rate: {base:g}, as given"
    factor = ratio if scaling.rule == "linear" else ratio**0.5
    formula = f"{batch}/{scaling.reference_batch}"
    formula = formula if scaling.rule == "linear" else f"sqrt({formula})"
    return base * factor, f"learning rate: {base:g} x {formula} = {base * factor:g}"


def build_hooks(config: Config) -> dict[str, Any]:
    """By name, in the order of the config; those with `last` after all others."""
    hooks = {name: HOOKS.build(hook, f"hooks.{name}") for name, hook in config.hooks.items()}
    return dict(sorted(hooks.items(), key=lambda item: item[1].last))


def build_optimizer(config: Config, model: SSLModel, lr: float) -> torch.optim.Optimizer:
    """The optimizer over the trainable parameters of the student, in groups."""
    weight_decay = OPTIMIZERS.check(config.optimizer, "optimizer")["weight_decay"]
    groups = param_groups(model, lr, weight_decay, **asdict(config.param_groups))
    return OPTIMIZERS.build(config.optimizer, "optimizer", params=groups)
