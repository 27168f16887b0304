"""What the images look like to the newest checkpoint of a run, computed by one process.

Shape suffixes: N images, B of a batch, D features, K logits, C classes, H, W, 3 of a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vissl_lite import HEADS, SOURCES, TRUNKS
from vissl_lite.config import Config
from vissl_lite.data.decode import BrokenImage
from vissl_lite.data.fast import FastViews
from vissl_lite.data.picture import open_picture
from vissl_lite.data.views import Views
from vissl_lite.engine import weights
from vissl_lite.engine.bench import labelled_views
from vissl_lite.engine.build import build_model, layer_widths
from vissl_lite.engine.features import evaluating
from vissl_lite.engine.state import read_model
from vissl_lite.errors import ConfigError
from vissl_lite.model import LOGITS, SSLModel
from vissl_lite.report.runs import Run

IMAGES = 2000  # at most, of a source
PIXELS_ON_CPU = 25_000_000  # of all images together: 500 of 224 x 224
BATCH = 100


@dataclass
class Look:
    """Images of a source, evenly spread over it, and their features.

    Attributes:
        source: what `indices_N` point into.
        x_ND: of the layer that feeds the heads, float32 on the CPU.
        logits_NK: scores of the prototypes, or None without any.
        label_N: class ids, -1 without.
        origin: which images these are, in words.
        weights: which weights looked, in words.
    """

    source: Any
    indices_N: list[int]
    x_ND: Tensor
    logits_NK: Tensor | None
    label_N: Tensor
    origin: str
    weights: str

    @property
    def labelled(self) -> bool:
        return bool(len(self.label_N)) and bool((self.label_N >= 0).all())

    def pixels(self, n: int) -> np.ndarray:
        """[H, W, 3] of image n, whole."""
        sample = self.source[self.indices_N[n]]
        return open_picture(sample.image, sample.name).pixels()

    def label(self, n: int) -> str:
        """Name of the class of image n; "" without."""
        return self.class_name(int(self.label_N[n]))

    def class_name(self, label: int) -> str:
        if label < 0:
            return ""
        classes = self.classes or []
        return str(classes[label]) if label < len(classes) else f"class {label}"

    @property
    def classes(self) -> list[str] | None:
        """Names of all classes; None where the source does not know them."""
        return getattr(self.source, "classes", None)

    def alt(self, n: int) -> str:
        """What a picture of image n is, for those who do not see it."""
        name = self.source[self.indices_N[n]].name or f"image {self.indices_N[n]}"
        return f"{name}, {self.label(n)}" if self.label(n) else name


class Looker:
    """The newest weights of a run, ready to look.

    Args:
        device: where features are computed.

    Attributes:
        config: of the run, without a classifier among the heads.

    Raises:
        ConfigError: there are no weights, or the config is not understood.
    """

    def __init__(self, run: Run, device: torch.device):
        self.config, self.device = _without_classifier(run.config), device
        self.model, self.weights = _model(run, self.config)
        self.model.to(device).eval()
        self.size = _size(self.config)
        views = labelled_views(replace(self.config.labelled, size=self.size))
        reference = self.config.data.backend == "reference"
        self.views = views if reference else FastViews(views, on_device=False)

    def split(self, split: str) -> Look | None:
        """At the images of `labelled.train` or `labelled.test`; None where there are none."""
        config = getattr(self.config.labelled, split)
        return self._look(config, f"labelled.{split}") if config else None

    def data(self) -> Look:
        """At the images of training, without their augmentations."""
        return self._look(self.config.data.source, "data.source")

    @torch.no_grad()
    def _look(self, config: Any, where: str) -> Look:
        source = SOURCES.build(config, where)
        chosen = spread(len(source), self._count())
        layers = [self.model.layer, *([LOGITS] if LOGITS in layer_widths(self.model) else [])]
        found: list[dict[str, Tensor]] = []
        kept, labels = [], []
        with evaluating(self.model):
            for images_BHWC, indices, label_B in _batches(source, self.views, chosen):
                out = self.model.layer_features(images_BHWC.to(self.device), layers)
                found.append({layer: x.float().cpu() for layer, x in out.items()})
                kept += indices
                labels += label_B
        if not kept:
            raise ConfigError(f"{where}: none of its images can be read")
        x = {layer: torch.cat([f[layer] for f in found]) for layer in layers}
        if bad := int((~x[self.model.layer].isfinite().all(1)).sum()):
            raise ConfigError(
                f"{where}: features of {bad:,} of {len(kept):,} images are NaN or infinite"
                f" ({self.weights}); an earlier checkpoint may be whole"
            )
        of_all = "all" if len(kept) == len(source) else f"{len(kept):,} of the"
        origin = f"{of_all} {len(source):,} images of {where}"
        label_N = torch.tensor(labels)
        features, logits = x[self.model.layer], x.get(LOGITS)
        return Look(source, kept, features, logits, label_N, origin, self.weights)

    def _count(self) -> int:
        on_cpu = PIXELS_ON_CPU // self.size**2
        return max(BATCH, min(IMAGES, on_cpu)) if self.device.type == "cpu" else IMAGES


def _size(config: Config) -> int:
    """Side of the images in pixels: that of evaluations; without any, that of the largest crops."""
    views = [group.size for group in config.data.views]
    evaluates = config.labelled.train or config.labelled.test or not views
    return config.labelled.size if evaluates else max(views)


def spread(size: int, most: int) -> list[int]:
    """At most `most` of 0..size-1, evenly, so that sorted classes all have their share."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(np.int64)).tolist()


def _batches(
    source: Any, views: Views | FastViews, chosen: Sequence[int]
) -> Iterator[tuple[Tensor, list[int], list[int]]]:
    """Pictures, indices and labels of the readable images; a label that is no class id is -1."""
    size = views.sizes[0]
    for start in range(0, len(chosen), BATCH):
        index_B = np.asarray(chosen[start : start + BATCH], np.int64)
        images_1BHWC = np.empty((1, len(index_B), size, size, 3), np.uint8)
        draws: Any = views.draw(0, 0, index_B)
        kept, labels = [], []
        for b, index in enumerate(index_B.tolist()):
            try:
                sample = source[index]
                views.write(sample.image, sample.name, draws, b, [images_1BHWC])
            except BrokenImage:
                continue
            kept.append(b)
            labels.append(sample.label if isinstance(sample.label, (int, np.integer)) else -1)
        if kept:
            yield torch.from_numpy(images_1BHWC[0, kept]), index_B[kept].tolist(), labels


def _model(run: Run, config: Config) -> tuple[SSLModel, str]:
    """The model of the newest checkpoint, or of `init` where nothing was trained, and which.

    Raises:
        ConfigError: neither is there.
    """
    newest = run.checkpoint
    if newest is None and not (config.train.epochs == 0 and config.init):
        raise ConfigError("the run has no complete checkpoint")
    with torch.random.fork_rng(devices=[]):
        model = build_model(config, None)
    if newest is None:
        weights.load_into(model, str(config.init))
        return model, f"the weights {config.init}"
    state, wanted = read_model(newest), model.state_dict()
    if missing := sorted(wanted.keys() - state.keys()):
        raise ConfigError(f"checkpoint {newest.name} has no {missing[0]}")
    model.load_state_dict({name: state[name] for name in wanted})
    return model, f"checkpoint {newest.name}"


def _without_classifier(config: Config) -> Config:
    """Scores of classes are not shown, and there may be millions; nor does an adapter's trunk need
    the pretrained weights that would be replaced at once."""
    heads = [HEADS.check(head, "heads") for head in config.heads]
    kept = [h for h in heads if h["name"] == "prototypes" or not _is_scorer(h["name"])]
    trunk = TRUNKS.check(config.trunk, "trunk")
    none = {"pretrained": False, "weights": None}
    known = {key: value for key, value in none.items() if key in trunk}
    return replace(config, heads=kept, trunk={**trunk, **known})


def _is_scorer(name: str) -> bool:
    return getattr(HEADS[name], "scorer", False)
