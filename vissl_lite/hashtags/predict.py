"""The most probable tags of images, by the classifier of a run.

Shape suffixes: B images of a block, V classes, K tags of an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vissl_lite import LOSSES, SOURCES
from vissl_lite.engine.ahead import OneAhead, Results
from vissl_lite.engine.journal import read_classes
from vissl_lite.engine.numerics import Numerics
from vissl_lite.engine.weights import run_of, saved_config
from vissl_lite.errors import ConfigError
from vissl_lite.extract.blocks import Blocks, read_blocks
from vissl_lite.extract.subject import Subject
from vissl_lite.model import LOGITS
from vissl_lite.sources._classes import read_names
from vissl_lite.sources._hashtags import class_rows, is_classes
from vissl_lite.sources._source import existing_file


@dataclass(frozen=True)
class Prediction:
    """Of one image.

    Attributes:
        index: place of the image in the source, counted from 0.
        tags: the most probable first.
        broken: why the image could not be read, "" if it could; such an image has no tags.
    """

    index: int
    name: str
    tags: list[str]
    probabilities: list[float]
    broken: str = ""


def top_k(z_BV: Tensor, k: int, each: bool = False) -> tuple[Tensor, Tensor]:
    """Probabilities [B, K] and class ids [B, K], the most probable first.

    p_v = exp(z_v) / sum over u of exp(z_u)    the classes share one unit of probability
    p_v = 1 / (1 + exp(-z_v))                  `each`: every class by itself
    """
    p_BV = z_BV.float().sigmoid() if each else z_BV.float().softmax(dim=1)
    return tuple(p_BV.topk(k, dim=1))  # pyright: ignore[reportReturnType]


@dataclass
class Tagger:
    """The model of a run and the names of its classes.

    Attributes:
        names: in the order of the class ids.
        each: the run was trained with a sigmoid per class, `binary_cross_entropy`.
    """

    subject: Subject
    names: list[str]
    each: bool

    @classmethod
    def load(cls, run: str, classes: str | None = None, size: int | None = None) -> Tagger:
        """
        Args:
            run: what `Subject.load` takes; the newest checkpoint of a run.
            classes: the classes.tsv of a vocabulary, or a text file with a name per line; default:
                the classes of the images that the run was trained on.
            size: side of the images in pixels; default: that of the run.

        Raises:
            ConfigError: no such weights, no classifier, no names, or another number of names.
        """
        subject = Subject.load(run, size)
        if subject.model.scorer is None:
            raise ConfigError(
                f"hashtags predict: {run} has no classifier; give a run whose heads end in linear,"
                " or a checkpoint in its folder"
            )
        folder = run_of(Path(subject.description["weights"]))
        assert folder is not None  # weights by themselves have no heads
        config = saved_config(folder)
        names = _given(classes) if classes else read_classes(folder) or _trained(config)
        if len(names) != (wanted := subject.widths()[LOGITS]):
            raise ConfigError(
                f"hashtags predict: {run} scores {wanted:,} classes,"
                f" {classes or 'its data.source'} has {len(names):,}; give --classes with the"
                " classes.tsv that it was trained with"
            )
        loss = LOSSES.check(config["loss"], "loss")["name"]
        return cls(subject, names, loss == "binary_cross_entropy")

    def check_k(self, k: int) -> None:
        """
        Raises:
            ConfigError: there are not so many classes.
        """
        if k > len(self.names):
            raise ConfigError(f"hashtags predict -k: {k}; the run has {len(self.names):,} classes")

    def __call__(
        self,
        source: Any,
        k: int,
        device: torch.device,
        precision: str = "fp32",
        batch_size: int = 256,
        workers: int = 0,
    ) -> Iterator[Prediction]:
        """All images of a source, in its order, the broken ones too."""
        blocks = Blocks(source, self.subject.views, batch_size)
        read, start = read_blocks(blocks, range(len(blocks)), workers), 0
        model = self.subject.model.to(device)
        numerics = Numerics(precision, "contiguous", reason="as given")

        @torch.no_grad()
        def compute(images_BHWC: Tensor) -> Results:
            with numerics.autocast(device):
                z_BV = model.layer_features(images_BHWC, [LOGITS])[LOGITS]
            p_BK, v_BK = top_k(z_BV, k, self.each)
            return {"p": p_BK, "v": v_BK}

        for block, found in OneAhead(read, compute, device):
            p_BK, v_BK = found["p"], found["v"]
            broken = dict(block.broken)
            for b, name in enumerate(block.names):
                tags = [] if b in broken else [self.names[v] for v in v_BK[b].tolist()]
                p_K = p_BK[b].tolist()[: len(tags)]
                yield Prediction(start + b, name, tags, p_K, broken.get(b, ""))
            start += len(block.names)


class TrueTags:
    """Tags of the images of a source by name, so that its class ids may differ from the run's."""

    def __init__(self, source: Any):
        self.classes = names_of(source)
        self.tags = source.all_tags() if hasattr(source, "all_tags") else None

    def __bool__(self) -> bool:
        """Whether the source tells them without opening its images."""
        return self.tags is not None

    def of(self, index: int) -> list[str]:
        assert self.tags is not None
        values, offsets = self.tags
        return self.named(values[offsets[index] : offsets[index + 1]])

    def named(self, tags: Iterable[int] | None) -> list[str]:
        return [self.classes[int(v)] for v in (() if tags is None else tags)]


def names_of(source: Any) -> list[str]:
    """Of the classes; their numbers where they have no names."""
    names = getattr(source, "classes", None)
    return [str(v) for v in range(source.num_classes or 0)] if names is None else list(names)


def _given(classes: str) -> list[str]:
    file = existing_file(classes, "hashtags predict --classes")
    if is_classes(file):
        return [row[1] for row in class_rows(file)]
    return read_names(file, "hashtags predict --classes")


def _trained(config: dict[str, Any]) -> list[str]:
    """The classes of the run's images, from `data.source`; their numbers if they have no names."""
    try:
        return names_of(SOURCES.build(config["data"]["source"], "data.source"))
    except ConfigError as error:
        raise ConfigError(
            f"hashtags predict: the images that the run was trained on would name its classes, but"
            f" {error.problems[0]}; or give --classes with their classes.tsv"
        ) from error
