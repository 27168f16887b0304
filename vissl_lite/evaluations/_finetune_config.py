"""The configs of fine-tuning: what a run has, with other images, another classifier and lengths."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vissl_lite import HEADS, OPTIMIZERS, ConfigError
from vissl_lite.config import Config, LrScaling, ParamGroups, Sampler, Train, ViewGroup
from vissl_lite.engine.weights import NOT_PRETRAINED

if TYPE_CHECKING:
    from vissl_lite.engine.bench import Bench

REFERENCE_BATCH = 256


@dataclass(frozen=True)
class Protocol:
    """Settings of a share; the learning rate of 256 images is divided by 10 once, after `drop`."""

    epochs: float
    lr: float
    weight_decay: float
    drop: float


SEER_ALL = Protocol(epochs=35, lr=0.0125, weight_decay=1e-4, drop=30 / 35)
SEER_FEWER = Protocol(epochs=70, lr=0.05, weight_decay=0.0, drop=30 / 70)


def start_from(file: Path, head: str, config: Config, bench: Bench) -> Config:
    """What all trainings share: the run's trunk, other heads, the loss, and `init`.

    Args:
        head: "linear" or "first_layer".
        config: of the run.
    """
    classifier = {"name": "linear", "out_dim": bench.num_classes}
    return replace(
        config,
        trunk={key: NOT_PRETRAINED.get(key, value) for key, value in config.trunk.items()},
        heads=[classifier] if head == "linear" else [first_layer(config.heads), classifier],
        loss={"name": "cross_entropy"},
        labelled=bench.labelled,
        loggers={"jsonl": {}},
        evaluations={},
        init=str(file),
        resume=True,
        objective="loss",
    )


def training(
    config: Config,
    settings: Any,
    share: float,
    source: dict[str, Any],
    batch_size: int,
    lr_factor: float,
) -> Config:
    """One training, on the images of `source`.

    Args:
        config: of `start_from`.
        settings: a `Finetune`.
        share: of the labels; says which of SEER's settings apply.
    """
    seer = SEER_ALL if share == 1 else SEER_FEWER
    sgd = {"name": "sgd", "nesterov": True, "lr": seer.lr, "weight_decay": seer.weight_decay}
    optimizer = OPTIMIZERS.check(settings.optimizer or sgd, "evaluations.finetune.optimizer")
    classifier = f"heads.{len(config.heads) - 1}.*"
    return replace(
        config,
        data=replace(
            config.data,
            source=source,
            views=[ViewGroup(config.labelled.size, settings.transforms)],
            sampler=Sampler(),
        ),
        optimizer={**optimizer, "lr": lr_factor * optimizer["lr"]},
        lr_scaling=LrScaling("linear", REFERENCE_BATCH),
        schedules={"lr": settings.schedule or {"name": "multistep", "milestones": [seer.drop]}},
        param_groups=ParamGroups(
            layer_decay=settings.layer_decay,
            overrides={classifier: {"lr_scale": settings.head_lr_scale}},
        ),
        train=Train(settings.epochs or seer.epochs, batch_size, log_every=config.train.log_every),
        hooks={"checkpoint": {"every_epochs": 0.0, "every_minutes": 5.0, "keep_last": 1}},
    )


def first_layer(heads: list[Any]) -> dict[str, Any]:
    """The config of a head that is the first layer of the first of `heads`.

    Raises:
        ConfigError: that is no `mlp` with a hidden layer.
    """
    first = HEADS.check(heads[0], "heads[0]") if heads else {"name": "none"}
    if first["name"] != "mlp" or not first["hidden"]:
        raise ConfigError(
            "evaluations.finetune.head: first_layer needs a run whose first head is an mlp with a"
            f" hidden layer; here it is {heads[0] if heads else 'none'}; take head=linear"
        )
    kept = {key: first[key] for key in ("norm", "activation", "bias")}
    return {"name": "hidden_layer", "out_dim": first["hidden"][0], **kept}
