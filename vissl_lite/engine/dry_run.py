"""`dry_run=true`: build everything, take one step on a few images, print the sizes, stop."""

from __future__ import annotations

import os
from dataclasses import replace

import torch
from rich.console import Console

from vissl_lite.config import Config, Sampler
from vissl_lite.data.batch import Batch
from vissl_lite.engine.build import build_hooks, build_model, build_source
from vissl_lite.engine.dry_evaluation import count, dry_evaluation, sizes
from vissl_lite.engine.numerics import Numerics
from vissl_lite.engine.parts import Parts
from vissl_lite.errors import MissingPath
from vissl_lite.model import Outputs
from vissl_lite.parallel.process import choose_device

IMAGES = 4
BYTES_PER_PARAMETER = 16  # fp32 weights, gradients, momentum, and a working copy
MADE_UP = 10**9  # images; enough for any batch and warm-up
LARGE_ON_CPU = 100e6  # parameters; a step of a larger model takes a CPU minutes


def dry_run(config: Config) -> None:
    """One step on a few images; on the meta device (shapes only) where the model is too large.

    Of a config that only evaluates, the weights look at a few labelled images. Nothing is written.
    Where the images of a training are not on this machine it makes some up, and says so.

    Raises:
        ConfigError: whatever else would stop the real run at its start, but for its loggers.
    """
    if not config.train.epochs:
        return dry_evaluation(config)
    build_hooks(config)
    config, missing = with_images(config)
    with torch.device("meta"):
        parameters = count(build_model(config, build_source(config).num_classes))
    device = choose_device(config.device)
    fits = parameters * BYTES_PER_PARAMETER < 0.6 * free_memory(device)
    if not fits or (device.type == "cpu" and parameters > LARGE_ON_CPU):
        device = torch.device("meta")
    fixed = Numerics("fp32", "contiguous", "not measured: shapes only").state_dict()
    parts = Parts(config, device, {"numerics": fixed} if device.type == "meta" else None)
    _print(parts, missing, parameters, *_one_step(parts))


def with_images(config: Config) -> tuple[Config, str]:
    """The config and ""; or one with made-up images, and which path of its source is not there."""
    try:
        build_source(config)
    except MissingPath as error:
        tagged = config.data.source.get("tags")
        made_up = {"name": "digits_tags" if tagged else "synthetic", "n": MADE_UP}
        data = replace(config.data, source=made_up, sampler=Sampler(), in_memory=False)
        return replace(config, data=data), error.problems[0].partition("; ")[0]
    return config, ""


def _one_step(parts: Parts) -> tuple[Outputs, torch.Tensor]:
    batch = parts.example(IMAGES).to(parts.device)
    with parts.numerics.autocast(parts.device):
        outputs = parts.model(batch.views)
    losses = parts.loss(outputs, batch)
    loss = losses["loss"] if isinstance(losses, dict) else losses
    loss.backward()
    parts.schedules.apply(0)
    parts.optimizer.step()
    parts.model.after_step()
    return outputs, loss.detach()


def _print(
    parts: Parts, missing: str, parameters: int, outputs: Outputs, loss: torch.Tensor
) -> None:
    config, example = parts.config, parts.example(IMAGES)
    shapes = {"features": outputs.features, "embedding": outputs.embedding}
    shapes |= {f"logits {i}": logits for i, logits in enumerate(outputs.logits)}
    table = sizes()
    add = table.add_row
    add("recipe", str(config.recipe))
    if missing:
        add("images", f"synthetic, of {parts.source.num_classes:,} classes, for {missing}")
    else:
        add("source", f"{config.data.source['name']}, {len(parts.source):,} images")
    add("views", _views(example))
    heads = count(parts.model.heads)
    add("parameters", f"{parameters / 1e6:,.1f} M, of these heads {heads / 1e6:,.1f} M")
    for name, tensor in shapes.items():
        add(f"  {name}", f"{list(tensor.shape)} crops, images, width")
    add("compute", f"{parts.flops_per_image / 1e9:,.1f} GFLOP per image and training step")
    add("global batch", f"{config.train.batch_size:,} images, {parts.local_batch:,} per process")
    length = f"{parts.total_steps:,} steps, {parts.steps_per_epoch:,} per epoch"
    add("length", "not known without the images" if missing else length)
    value = (
        "no value: shapes only, the model is too large for a step here"
        if loss.is_meta
        else f"{loss:.4f}"
    )
    add("loss", value)
    for note in parts.notes:
        add("", note)
    Console(highlight=False).print(table)


def _views(example: Batch) -> str:
    return " + ".join(f"{len(view)} x {view.shape[2]} px" for view in example.views)


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
