"""Starting from weights, of ours or from elsewhere. Never partially silent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from vissl_lite import TRUNKS, io
from vissl_lite.engine.checkpoint import Checkpointer
from vissl_lite.engine.state import differences, read_model
from vissl_lite.errors import ConfigError, did_you_mean, place_renamed
from vissl_lite.formats import vit
from vissl_lite.formats.files import read_file
from vissl_lite.formats.format import IMAGENET, UNKNOWN, Pixels
from vissl_lite.formats.identify import identify
from vissl_lite.formats.published import PUBLISHED
from vissl_lite.formats.recognise import (
    ADAPTED,
    Weights,
    infer,
    recognise,
    recognise_adapted,
)
from vissl_lite.formats.report import Report
from vissl_lite.layers.norm import BatchNorm1d
from vissl_lite.model import SSLModel
from vissl_lite.plugins import load_entries
from vissl_lite.trunks._trunk import Trunk

NOT_PRETRAINED = {"pretrained": False, "weights": None}  # in the config of an adapter


def load(
    path_or_name: str | Path,
    *,
    trunk: str | Mapping[str, Any] | None = None,
    allow_missing: bool = False,
) -> nn.Module:
    """A trunk with weights, in eval mode: `load("runs/x")(images_NCHW)["res5"]`.

    Args:
        path_or_name: a run of ours (its newest checkpoint), a checkpoint, a file in a format of
            docs/weights.md, its address (https://...), or a name of `PUBLISHED`, such as
            "swav_resnet50". The format shows in the tensors' names and shapes.
        trunk: the config of their trunk, such as `{"name": "timm", "model": "convnext_tiny"}`;
            default: the one of ours with exactly these tensors, else of torchvision or timm.
        allow_missing: tensors that the file lacks stay random instead of being an error.

    Returns:
        A trunk in float32 on the CPU, with the attributes `config` (all its settings), `mean` and
        `std` (per channel, of pixels in [0, 1]) and `size` (side of the images in pixels), each
        None where nothing tells it, and `report` (printable: what was loaded, renamed, ignored,
        missing).

    Raises:
        ConfigError: nothing there, no known network, several that compute different features, or
            tensors that the trunk lacks, misses, or has in another shape.
    """
    load_entries()
    weights = None if trunk else identify(read(path_or_name), allow_missing)
    config = TRUNKS.check(weights.config if weights else trunk, "trunk")
    with torch.random.fork_rng(devices=[]):
        loaded = TRUNKS.build(_without_download(config), "trunk")
    weights = weights or read(path_or_name, loaded)
    _check_unseen(weights, loaded, path_or_name)
    loaded.config = config
    _fill(loaded, weights, allow_missing)
    loaded.mean, loaded.std = weights.pixels.mean, weights.pixels.std
    loaded.size = config.get("image_size", weights.pixels.size)
    loaded.report = weights.report
    return loaded.eval()


@place_renamed("weights", "init")
def load_into(model: SSLModel, path: str | Path) -> list[str]:
    """Loads trunk weights, and those of the heads, from the first on as long as they fit.

    Args:
        path: as for `load`.

    Returns:
        Sentences on what was loaded and what was not.

    Raises:
        ConfigError: nothing there, or the trunk's tensors do not match one by one.
    """
    weights = read(path, model.trunk)
    wanted = model.trunk.state_dict()
    _start_counters(weights, wanted)
    if wrong := differences(weights.trunk, wanted):
        raise ConfigError(
            f"init: {path} holds another trunk than the config: {wrong};"
            f" set the trunk that the weights were trained with{_in_words(weights)}"
        )
    _check_unseen(weights, model.trunk, path)
    model.trunk.load_state_dict(weights.trunk)
    notes = [f"init: {len(wanted)} trunk tensors from {path} ({weights.report.format})"]
    if len(model.heads):
        notes.append(_load_heads(model, weights))
    ignored = weights.report.ignored_in_words()
    return notes + ([f"init: {ignored}"] if ignored else [])


def _load_heads(model: SSLModel, weights: Weights) -> str:
    """Fills the heads, from the first on as long as they fit, and says which.

    Behind one that is only the beginning of the file's, such as a `hidden_layer` of an `mlp`, or
    that has a norm which the file's lacks, none is filled.
    """
    used: list[str] = []
    loaded, cut = 0, []
    for i, head in enumerate(model.heads):
        given = _below(f"{i}.", weights.heads)
        own, fresh = _beginning(head, given)
        wanted = {name: t for name, t in head.state_dict().items() if name not in fresh}
        if not own or differences(own, wanted):
            break
        head.load_state_dict(own, strict=not fresh)
        used += [f"heads.{i}.{name}" for name in own]
        loaded = i + 1
        if len(own) < len(given):
            cut.append(f"heads.{i} is the beginning of the file's")
        if fresh:
            cut.append(f"the norm of heads.{i} starts from scratch, the file's has none")
        if cut:
            break
    if not used:
        return "init: heads start from scratch, the file has none that fit"
    names = weights.head_names
    left = [n for n in weights.report.ignored.pop("head") if names.get(n, n) not in used]
    weights.report.ignored |= {"head": left} if left else {}
    new = [f"heads.{i} starts from scratch" for i in range(loaded, len(model.heads))]
    return ", ".join([f"init: {len(used)} head tensors", *cut, *new])


def _beginning(head: nn.Module, given: dict[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """Of the tensors of a chain of layers those of as many layers as `head` has; else all.

    Where `head` has a norm that the chain lacks: those before it.

    Returns:
        These tensors, and the names in `head` of such norms.
    """
    if not isinstance(head, nn.Sequential):
        return given, set()
    layer = {name: name.partition(".")[0] for name in given}
    norms = [i for i, part in enumerate(head) if isinstance(part, BatchNorm1d)]
    new = [i for i in norms if str(i) not in layer.values()] if given else []
    end = min([len(head), *new])
    behind = {name for name in given if layer[name].isdigit() and int(layer[name]) >= end}
    fresh = {f"{i}.{name}" for i in new for name in head[i].state_dict()}
    return {name: t for name, t in given.items() if name not in behind}, fresh


def read(path_or_name: str | Path, trunk: nn.Module | None = None) -> Weights:
    """The tensors of a trunk under our names, from all that `load` takes.

    Args:
        trunk: that they are for, if it is known; an adapter takes its library's names, too.

    Raises:
        ConfigError: nothing there, or it cannot be read.
    """
    adapter = trunk if isinstance(trunk, Trunk) and trunk.library else None
    weights = _read(path_or_name, adapter)
    if adapter and not any(name.startswith(ADAPTED) for name in weights.trunk):
        weights.trunk = {ADAPTED + name: tensor for name, tensor in weights.trunk.items()}
    return weights


def _read(path_or_name: str | Path, adapter: Trunk | None) -> Weights:
    path = io.local_path(PUBLISHED.get(str(path_or_name), path_or_name))
    if path.is_file():
        weights = _from_file(path, adapter)
        if str(path_or_name) in PUBLISHED:  # all of them on ImageNet's pixels, SwAV by its own std
            weights.pixels = replace(IMAGENET, std=weights.pixels.std or IMAGENET.std)
        return weights
    newest = path if (path / "meta.json").is_file() else Checkpointer(path / "checkpoints").latest()
    if newest is None:
        runs = [str(folder.parent) for folder in path.parent.glob("*/checkpoints")]
        close = did_you_mean(str(path), (x for x in (*runs, *PUBLISHED) if x != str(path)))
        raise ConfigError(
            f"weights: {path} is neither a run with checkpoints, nor a checkpoint, nor a file of"
            f" weights, nor the name of published ones{close}"
        )
    config = saved_config(run_of(newest)).get("trunk")
    return _ours(read_model(newest), str(newest), config, _pixels(newest))


def run_config(path: Path) -> Path:
    """The saved config of the run that a path belongs to.

    Raises:
        ConfigError: the path is not (in) a run of ours.
    """
    if (run := run_of(path)) is not None:
        return run / "config.yaml"
    raise ConfigError(
        f"init: {path} does not belong to a run (no config.yaml beside it); set trunk and labelled"
        " yourself"
    )


def run_of(path: Path) -> Path | None:
    """The folder of the run that a path belongs to; None for what was taken out of its run."""
    folders = (path, *path.parents[:2])
    return next((folder for folder in folders if (folder / "config.yaml").is_file()), None)


def saved_config(run: Path | None) -> dict[str, Any]:
    """The config of a run; {} for None."""
    return yaml.safe_load((run / "config.yaml").read_text()) if run else {}


def _from_file(path: Path, adapter: Trunk | None) -> Weights:
    tensors, card = read_file(path)
    if card.keys() >= {"trunk", "vissl_lite"}:
        pixels = _in_header(card) or _pixels(path)
        return _ours(tensors, str(path), json.loads(card["trunk"]), pixels)
    weights = recognise_adapted(tensors, str(path), adapter) if adapter else None
    weights = weights or recognise(tensors, str(path)) or _ours(tensors, str(path))
    weights.pixels = _in_header(card) or weights.pixels
    weights.file = tensors
    return weights


def _ours(
    state: dict[str, Tensor],
    origin: str,
    config: dict[str, Any] | None = None,
    pixels: Pixels = UNKNOWN,
) -> Weights:
    """A trunk by itself, or the student's in a whole model; of a teacher all names say so."""
    report = Report(origin, "vissl_lite")
    trunk, heads = _below("trunk.", state), _below("heads.", state)
    if trunk:
        report.renamed = {f"trunk.{name}": name for name in trunk}
        for name in [name for name in state if name not in report.renamed]:
            part = name.partition(".")[0]
            report.ignored.setdefault("head" if part == "heads" else part, []).append(name)
    unseen = vit.unseen(config) if config else {}
    return Weights(trunk or state, report, config, pixels, heads if trunk else {}, unseen)


def _check_unseen(weights: Weights, trunk: nn.Module, path: str | Path) -> None:
    for key, value in weights.unseen.items():
        own = getattr(trunk, key, value)
        if own != value:
            raise ConfigError(
                f"weights: the trunk of {path} has {value} {key}, that of the config {own}; set"
                f" trunk.{key}={value}"
            )


def _below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in state.items() if k.startswith(prefix)}


def _in_header(card: dict[str, str]) -> Pixels | None:
    """What a file that we wrote says of itself."""
    if not card.keys() >= {"vissl_lite", "mean", "std"}:
        return None
    mean, std, size = (json.loads(card.get(key, "null")) for key in ("mean", "std", "size"))
    return Pixels(tuple(mean), tuple(std), size)


def _pixels(path: Path) -> Pixels:
    """Of the run that a path belongs to."""
    saved = saved_config(run_of(path))
    if not {"data", "labelled"} <= saved.keys():
        return UNKNOWN
    mean, std = (tuple(saved["data"][key]) for key in ("mean", "std"))
    return Pixels(mean, std, saved["labelled"]["size"])


def _without_download(config: dict[str, Any]) -> dict[str, Any]:
    """The adapters' pretrained weights would be replaced at once."""
    return {**config, **{k: v for k, v in NOT_PRETRAINED.items() if k in config}}


def _fill(trunk: nn.Module, weights: Weights, allow_missing: bool) -> None:
    wanted, report = trunk.state_dict(), weights.report
    _start_counters(weights, wanted)
    report.compare(weights.trunk, wanted)
    absent = {name: wanted[name] for name in report.missing} if allow_missing else {}
    if wrong := differences({**weights.trunk, **absent}, wanted):
        remedy = "; allow_missing=True accepts what is missing" if report.missing else ""
        raise ConfigError(
            f"weights: {report.origin} ({report.format}) is no whole trunk"
            f" {weights.config or trunk.config}: {wrong}"
            f"{remedy}"
        )
    trunk.load_state_dict({**weights.trunk, **absent})


def _start_counters(weights: Weights, wanted: dict[str, Tensor]) -> None:
    """Files from before PyTorch 0.4.1 lack BatchNorm's counters of batches, which weigh nothing."""
    for name, tensor in wanted.items():
        if name.endswith("num_batches_tracked") and name not in weights.trunk:
            weights.trunk[name] = torch.zeros_like(tensor)
            weights.report.started.append(name)


def _in_words(weights: Weights) -> str:
    """The trunk's config, where the weights tell it."""
    try:
        return f": {weights.config or infer(weights.trunk)}"
    except ConfigError:
        return ""
