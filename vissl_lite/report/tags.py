"""Photographs with true and predicted tags, of runs that were trained with tags."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from vissl_lite import HEADS, SOURCES
from vissl_lite.config import Config
from vissl_lite.data.decode import BrokenImage
from vissl_lite.errors import ConfigError
from vissl_lite.hashtags.predict import Prediction, Tagger
from vissl_lite.hashtags.predict_page import LEGEND, gallery
from vissl_lite.report.look import spread
from vissl_lite.report.page import Html, section, tag
from vissl_lite.report.runs import Run
from vissl_lite.report.sheet import Few

IMAGES, TAGS, BATCH = 24, 5, 8
MOST_CLASSES = 200_000  # 1.6 GB of float32 with 2,048 features


def tags(run: Run, device: torch.device) -> Html | None:
    """The most probable tags of a few images; None for runs without tags or without a classifier.

    The images are those of the evaluation `tag_prediction`, else of `labelled.test` if they have
    tags, else of the training itself.

    Raises:
        ConfigError: there is no checkpoint, the images cannot be read, or there are too many
            classes to load their weights for a report.
    """
    config = run.config
    if not _has_classifier(config):
        return None
    trained = SOURCES.build(config.data.source, "data.source")
    if not _tagged(trained):
        return None
    if trained.num_classes > MOST_CLASSES:
        raise ConfigError(
            f"{trained.num_classes:,} classes are too many for a report; take vissl-lite hashtags"
            " predict with --page"
        )
    if run.checkpoint is None:
        raise ConfigError("the run has no complete checkpoint")
    source, origin = _source(config, trained)
    rows = _predicted(Tagger.load(str(run.folder)), source, device)
    said = f"{len(rows)} of the {len(source):,} images of {origin}, evenly spread. {LEGEND}"
    return section("Predicted tags", tag("p", said), gallery(rows, source))


def _has_classifier(config: Config) -> bool:
    """Prototypes are scored too, but have no names."""
    name = HEADS.check(config.heads[-1], "heads")["name"] if config.heads else "prototypes"
    return name != "prototypes" and getattr(HEADS[name], "scorer", False)


def _tagged(source: Any) -> bool:
    """Whether the first image that can be read may have tags."""
    for index in range(min(len(source), IMAGES)):
        try:
            return source[index].tags is not None
        except BrokenImage:
            continue
    return False


def _source(config: Config, trained: Any) -> tuple[Any, str]:
    """Images with tags, held-out ones if there are some, and where the config names them."""
    given = (config.evaluations.get("tag_prediction") or {}).get("test")
    places = {"evaluations.tag_prediction.test": given, "labelled.test": config.labelled.test}
    for place, entry in places.items():
        if entry and _tagged(source := SOURCES.build(entry, place)):
            return source, place
    return trained, "data.source"


def _predicted(tagger: Tagger, source: Any, device: torch.device) -> list[Prediction]:
    """Of a few images that can be read."""
    index_B = np.array(spread(len(source), IMAGES))
    count = min(TAGS, len(tagger.names))
    rows = tagger(Few(source, index_B), count, device, batch_size=BATCH)
    return [replace(row, index=int(index_B[row.index])) for row in rows if not row.broken]
