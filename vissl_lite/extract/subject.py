"""The model whose features are wanted, and how images are put before it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vissl_lite import HEADS
from vissl_lite.config import IMAGENET_MEAN, IMAGENET_STD, Labelled
from vissl_lite.data.fast import FastViews
from vissl_lite.data.views import Views
from vissl_lite.engine.build import layer_widths
from vissl_lite.engine.weights import load, read, run_of, saved_config
from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.extract import perceptual_hash
from vissl_lite.extract.perceptual_hash import PerceptualHash
from vissl_lite.model import EMBEDDING, LOGITS, SSLModel


@dataclass
class Subject:
    """A model in eval mode and what it sees.

    Attributes:
        description: where the weights are, their digest, and everything that turns an image into
            what the model sees; equal descriptions give equal features.
        notes: sentences on what nothing told and was assumed.
    """

    model: SSLModel
    views: FastViews
    description: dict[str, Any]
    notes: list[str]

    @classmethod
    def load(cls, path_or_name: str, size: int | None = None) -> Subject:
        """
        Args:
            path_or_name: what `vissl_lite.load` takes. A run, and what is in its folder, brings
                its heads, mean, std, and the size and transforms of `labelled`. Or
                "perceptual_hash", which needs no weights.
            size: side of the images in pixels; default: that of the run, of the weights, or 224.

        Raises:
            ConfigError: there are no such weights, or no whole trunk.
        """
        if path_or_name == perceptual_hash.NAME:
            return cls._of_hash()
        trunk = load(path_or_name)
        report: Any = trunk.report
        run = _run(report)
        seen, notes = _seen(trunk, run, size)
        heads, state = _heads(trunk, run, report.origin)
        layer, pool = run.get("layer"), run.get("pool", "avg")
        model = SSLModel(
            trunk, heads, mean=seen["mean"], std=seen["std"], layer=layer, pool=pool
        ).eval()
        model.heads.load_state_dict(state)
        group = {"count": 1, "size": seen["size"], "transforms": seen["transforms"]}
        views = FastViews(Views.build([group], "labelled"), on_device=False)
        place = _absolute(report.origin) if Path(path_or_name).exists() else path_or_name
        found = {"weights": place, "digest": digest(model), "layer": model.layer, "pool": pool}
        return cls(model, views, {**found, **seen}, notes)

    @classmethod
    def _of_hash(cls) -> Subject:
        size = perceptual_hash.IMAGE
        transforms = [{"name": "resize", "short_side": size}, {"name": "center_crop"}]
        seen = {"mean": [0.0] * 3, "std": [1.0] * 3, "size": size, "transforms": transforms}
        model = SSLModel(PerceptualHash(), mean=seen["mean"], std=seen["std"]).eval()
        group = {"count": 1, "size": size, "transforms": transforms}
        views = FastViews(Views.build([group], "labelled"), on_device=False)
        found = {"weights": perceptual_hash.NAME, "digest": digest(model), "layer": model.layer}
        return cls(model, views, {**found, "pool": "avg", **seen}, [])

    def widths(self) -> dict[str, int]:
        """Layer -> channels; "embedding" only where there are heads, "logits" with a scorer."""
        found = layer_widths(self.model)
        return {k: n for k, n in found.items() if k != EMBEDDING or len(self.model.heads)}

    def check_layers(self, layers: list[str]) -> dict[str, int]:
        """The widths of these layers; of the one that feeds the heads without any.

        Raises:
            ConfigError: the model does not have one of them.
        """
        known = self.widths()
        for layer in layers:
            if layer not in known:
                close = did_you_mean(layer, known) or ";"
                raise ConfigError(
                    f"extract --layer: the model has no {layer!r}{close} it has {', '.join(known)}"
                )
        return {layer: known[layer] for layer in layers or [self.model.layer]}

    def keep_only(self, layers: Iterable[str]) -> None:
        """Drops the scorer where no logits are wanted: it may be larger than the trunk."""
        if LOGITS not in layers and self.model.scorer is not None:
            del self.model.heads[-1]


def digest(model: nn.Module) -> str:
    """Of names and values of all weights and statistics."""
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        found.update(f"{name} {tuple(tensor.shape)} ".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _run(report: Any) -> Mapping[str, Any]:
    """The saved config of the run that weights of ours belong to; {} for all others."""
    return saved_config(run_of(Path(report.origin))) if report.format == "vissl_lite" else {}


def _seen(
    trunk: nn.Module, run: Mapping[str, Any], size: int | None
) -> tuple[dict[str, Any], list[str]]:
    """Mean, std, size and transforms of the images, and what was assumed of them."""
    usual = Labelled()
    seen = {"mean": trunk.mean, "std": trunk.std, "size": size or trunk.size}
    assumed = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "size": usual.size}
    unknown = [key for key, value in seen.items() if value is None]
    seen |= {key: assumed[key] for key in unknown}
    seen |= {key: list(seen[key]) for key in ("mean", "std")}
    seen["transforms"] = run.get("labelled", {}).get("transforms", usual.transforms)
    note = f"note: the weights do not tell {', '.join(unknown)}: taken as on ImageNet"
    return seen, [note] if unknown else []


def _heads(
    trunk: nn.Module, run: Mapping[str, Any], origin: str
) -> tuple[list[nn.Module], dict[str, Any]]:
    """The heads with their weights; none where the weights have none."""
    configs = run.get("heads", [])
    state = read(origin).heads if configs else {}
    if not state:
        return [], {}
    heads, width = [], trunk.widths[run["layer"] or list(trunk.widths)[-1]]  # pyright: ignore
    for i, config in enumerate(configs):
        num_classes = _rows({k: t for k, t in state.items() if k.startswith(f"{i}.")})
        heads.append(HEADS.build(config, f"heads[{i}]", in_dim=width, num_classes=num_classes))
        width = heads[-1].out_dim
    return heads, state


def _rows(tensors: Mapping[str, Tensor]) -> int | None:
    """Of the last tensor, [K] or [K, D]: the number of classes, if a classifier has them."""
    rows = [len(tensor) for tensor in tensors.values() if tensor.ndim]
    return rows[-1] if rows else None


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
