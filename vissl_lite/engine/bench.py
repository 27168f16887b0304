"""What evaluations look at: labelled images, and what they look like to a model.

The command `bench`, which measures time and memory, is in profile/.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vissl_lite import SOURCES
from vissl_lite.config import Config, Labelled
from vissl_lite.data.fast import FastViews
from vissl_lite.data.views import Views
from vissl_lite.engine.features import FeatureSet, Target, check_layers, extract
from vissl_lite.engine.numerics import Numerics
from vissl_lite.errors import ConfigError
from vissl_lite.model import SSLModel
from vissl_lite.parallel.collectives import rank


class Bench:
    """What an evaluation gets: a model, and the features of labelled images on request.

    Every layer of every split is computed once and kept as long as the bench.

    Args:
        sources: "train" and "test".
        config: of the run, for what trains networks of its own.
        folder: of the run; an evaluation may write into `files(NAME)`.
        workers: processes per rank that read images.
        note: takes sentences for the user.
        stop_point: called before each batch of images; may raise to give up.

    Attributes:
        num_classes: of the labels.
        labelled: size, transforms and batch size of the images.
    """

    def __init__(
        self,
        model: SSLModel,
        labelled: Labelled,
        sources: dict[str, Any],
        *,
        device: torch.device,
        numerics: Numerics,
        config: Config | None = None,
        folder: Path | None = None,
        workers: int = 0,
        backend: str = "fast",
        note: Callable[[str], None] = lambda text: None,
        stop_point: Callable[[], None] = lambda: None,
    ):
        self.stop_point = stop_point
        self.model, self.labelled, self.sources, self.note = model, labelled, sources, note
        self.device, self.numerics, self.workers = device, numerics, workers
        self.config, self.folder, self.backend = config, folder, backend
        self.num_classes: int = max((s.num_classes for s in sources.values()), default=0)
        self._known: dict[tuple[str, Target], FeatureSet] = {}

    def features(
        self, split: str, layers: Sequence[str] | None = None, target: Target = "label"
    ) -> FeatureSet:
        """Of split "train" or "test"; all ranks call it together.

        Args:
            layers, target: as in `extract`.

        Raises:
            ConfigError: not one image of the split with a label, or tags, can be read.
        """
        layers = layers or [self.model.layer]
        key: tuple[str, Target] = (split, target)
        known = self._known[key].features if key in self._known else {}
        missing = [layer for layer in layers if layer not in known]
        if missing:
            self._keep(key, self.seen(split, self.labelled, missing, target=target))
        kept = self._known[key]
        return replace(kept, features={layer: kept.features[layer] for layer in layers})

    def seen(
        self,
        split: str | Any,
        labelled: Labelled,
        layers: Sequence[str] | None = None,
        *,
        target: Target = "label",
        epoch: int = 0,
        place: str = "labelled",
    ) -> FeatureSet:
        """Features of images seen in another way, which are not kept; all ranks call it together.

        Args:
            split: "train", "test", or another source.
            labelled: size, transforms and batch size, such as `replace(bench.labelled, size=288)`.
            epoch: random transforms do other things in other epochs.
            place: of these transforms in the config, for messages.

        Raises:
            ConfigError: as `features`.
        """
        views = labelled_views(labelled, place)
        found = extract(
            self.model,
            self.sources[split] if isinstance(split, str) else split,
            views if self.backend == "reference" else FastViews(views, on_device=False),
            layers,
            device=self.device,
            numerics=self.numerics,
            batch_size=labelled.batch_size,
            workers=self.workers,
            target=target,
            epoch=epoch,
            stop_point=self.stop_point,
        )
        if not len(found.label_N) and target != "unlabelled":
            missing = {
                "label": "a label; evaluations need labels",
                "tags": "tags; an evaluation needs them",
            }
            where = f"labelled.{split}" if isinstance(split, str) else repr(split)
            raise ConfigError(f"{where}: has no readable image with {missing[target]}")
        return found

    def check_layers(self, *layers: str | None) -> None:
        """
        Raises:
            ConfigError: the model does not have one of them; None stands for its default.
        """
        check_layers(self.model, [layer for layer in layers if layer is not None])

    def files(self, name: str) -> Path | None:
        """The folder for what an evaluation leaves behind, made on rank 0; None on other ranks and
        where there is no run."""
        if self.folder is None or rank() > 0:
            return None
        folder = self.folder / "evaluations" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _keep(self, key: tuple[str, Target], new: FeatureSet) -> None:
        if key in self._known:
            self._known[key].features.update(new.features)
            return
        self._known[key] = new
        if new.broken:
            shown = ", ".join(new.broken[:3]) + (", ..." if len(new.broken) > 3 else "")
            self.note(f"evaluation: {len(new.broken)} unreadable images left out: {shown}")


def labelled_sources(config: Config, classes_by_name: bool = False) -> dict[str, Any]:
    """The sources that evaluations look at, "train" and "test".

    Args:
        classes_by_name: class names may differ; the test images get the train's ids of their names,
            and names that the train images lack get ids behind them.

    Raises:
        ConfigError: one is missing or has no classes, or their class names differ.
    """
    sources = {}
    for split in ("train", "test"):
        given = getattr(config.labelled, split)
        if given is None:
            raise ConfigError(
                f"labelled.{split}: evaluations ({', '.join(config.evaluations)}) need labelled"
                " images; set labelled.train and labelled.test to sources with labels"
            )
        sources[split] = SOURCES.build(given, f"labelled.{split}")
        if sources[split].num_classes is None:
            raise ConfigError(f"labelled.{split}: source {given['name']!r} has no labels")
    train, test = sources["train"].classes, sources["test"].classes
    if classes_by_name and train and test and train != test:
        names = dict.fromkeys([*train, *test])
        ids = {name: i for i, name in enumerate(names)}
        mix = {"name": "mix", "sources": [config.labelled.test], "label_maps": [ids]}
        return {**sources, "test": SOURCES.build(mix, "labelled.test")}
    _check_same_classes(train, test)
    return sources


def labelled_views(labelled: Labelled, place: str = "labelled") -> Views:
    """One crop per image; `place` is where the transforms stand in the config."""
    group = {"count": 1, "size": labelled.size, "transforms": labelled.transforms}
    return Views.build([group], place)


def _check_same_classes(train: list[str] | None, test: list[str] | None) -> None:
    """Class ids are comparable only between equal lists of names."""
    if train is not None and test is not None and train != test:
        differ = sorted(set(train) ^ set(test))
        shown = ", ".join(differ[:3]) or "their order"
        raise ConfigError(
            f"labelled.test: its classes are not those of labelled.train ({shown}); both need the"
            " same class names in the same order, but for evaluations that only compare images"
            " (retrieval, copy_detection)"
        )
