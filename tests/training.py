"""Small trainings for tests: a composed config, a trainer, its losses."""

import json
from pathlib import Path

import hydra
from omegaconf import DictConfig

from vissl_lite.config import Config, check
from vissl_lite.engine.trainer import Trainer
from vissl_lite.plugins import load_entries, register_with_hydra

VIEW = "{size: 16, count: 2, transforms: [random_resized_crop, random_horizontal_flip]}"
SMALL = [
    "trunk=resnet",
    "++trunk.depth=18",
    "++trunk.stem=cifar",
    "++trunk.width_multiplier=0.125",
    "++heads=[{name: mlp, hidden: [32], out_dim: 16}]",
    f"++data.views=[{VIEW}]",
    "++data.workers=0",
    "++train.batch_size=16",
    "++train.epochs=1",
    "++train.log_every=1",
    "++precision=fp32",
    "++memory.memory_format=contiguous",
    "++device=cpu",
    "++optimizer.lr=0.05",
    "hooks=[]",
    "loggers=[jsonl]",
    "++recipe=test",
]


def composed(*overrides: str) -> DictConfig:
    """What Hydra composes for these overrides."""
    load_entries()
    register_with_hydra()
    with hydra.initialize(version_base="1.3", config_path=None):
        return hydra.compose("defaults", overrides=list(overrides))


def small(*overrides: str) -> Config:
    """The checked config of a training that takes well under a second per step."""
    return check(composed(*SMALL, *overrides))


def trained(config: Config, run_dir: Path) -> Trainer:
    trainer = Trainer(config, run_dir)
    trainer.fit()
    return trainer


def records(run_dir: Path, kind: str = "train") -> list[dict]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]
