"""`dry_run=true` of a config that only evaluates: load the weights, look at a few images, stop."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import torch
from rich.console import Console
from rich.table import Table

from vissl_lite.config import Config
from vissl_lite.data.fast import FastViews
from vissl_lite.engine.bench import labelled_views
from vissl_lite.engine.build import build_hooks
from vissl_lite.engine.evaluate import Evaluations, set_up
from vissl_lite.engine.features import LabelledImages, Target, evaluating
from vissl_lite.engine.numerics import Numerics
from vissl_lite.model import SSLModel

IMAGES = 4


def dry_evaluation(config: Config) -> None:
    """Prints what would be evaluated, and the sizes; nothing is written.

    Raises:
        ConfigError: whatever would stop the real evaluation at its start, but for its loggers.
    """
    build_hooks(config)
    evaluations, model, numerics, notes = set_up(config, Path())
    evaluations.check(evaluations.bench(model, numerics, note=notes.append))
    table, labelled = sizes(), config.labelled
    table.add_row("recipe", str(config.recipe))
    table.add_row("evaluations", ", ".join(evaluations.entries))
    for split, source in evaluations.sources.items():
        of_classes = f"{len(source):,} images of {source.num_classes:,} classes"
        table.add_row(split, f"{getattr(labelled, split)['name']}, {of_classes}")
    table.add_row("parameters", f"{count(model) / 1e6:,.1f} M")
    if evaluations.sources:
        shape = list(_features(evaluations, model, numerics).shape)
        table.add_row("  features", f"{shape} images of {labelled.size} px, width of {model.layer}")
    for note in notes:
        table.add_row("", note)
    Console(highlight=False).print(table)


@torch.no_grad()
def _features(evaluations: Evaluations, model: SSLModel, numerics: Numerics) -> torch.Tensor:
    """[B, D] of those of the first images that can be read, with labels, tags or neither."""
    views = FastViews(labelled_views(evaluations.config.labelled), on_device=False)
    source, device = evaluations.sources["train"], evaluations.device
    first = range(min(IMAGES, len(source)))
    for target in get_args(Target):
        chunk = LabelledImages(source, views, target)[first]
        if len(chunk.index_B):
            break
    with evaluating(model), numerics.autocast(device):
        found = model.layer_features(chunk.images_BHWC.to(device), [model.layer])
    return found[model.layer]


def sizes() -> Table:
    """An empty table of two columns: what, and how large."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")  # paths whole, however long
    return table


def count(module: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())
