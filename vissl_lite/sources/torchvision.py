"""The datasets of torchvision."""

import inspect
from typing import Any

import numpy as np
from torchvision import datasets

from vissl_lite import SOURCES
from vissl_lite.data.batch import Sample
from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.sources._source import Source


@SOURCES.register("torchvision")
class Torchvision(Source):
    """A dataset of torchvision by its name: CIFAR10, MNIST, STL10, Food101, FakeData.

    A target that is one whole number >= 0 is the label; others (boxes, masks, the -1 of STL10's
    unlabelled part) are not taken. How much memory it takes is torchvision's choice. CIFAR's
    files are pickles, whose MD5 sums torchvision checks before it loads them.

    Args:
        dataset: name of the class in torchvision.datasets.
        root: folder of its files.
        split: value of its parameter `split`; "train" or "test" where it has the parameter
            `train`; None where it has neither.
        download: fetch the files that are missing.
        options: further parameters of the class, such as {size: 1000} of FakeData.

    Raises:
        ConfigError: unknown dataset, parameter or split, or missing files.
    """

    def __init__(
        self,
        dataset: str = "CIFAR10",
        root: str = "data",
        split: str | None = "train",
        download: bool = False,
        options: dict[str, Any] | None = None,
    ):
        self.name = dataset
        entry = _named(dataset)
        given = {**_split(entry, dataset, split), **(options or {})}
        self.dataset = _opened(entry, root, download, given)
        targets = _targets(self.dataset)
        self.classes = _classes(self.dataset)
        self.num_classes = getattr(self.dataset, "num_classes", None)
        if self.classes:
            self.num_classes = len(self.classes)
        elif targets is not None and targets.max(initial=-1) >= 0:
            self.num_classes = int(targets.max()) + 1

    def __len__(self) -> int:
        return len(self.dataset)

    def sample(self, index: int) -> Sample:
        image, target = self.dataset[index]
        label = int(target) if _is_class(target) else None
        return Sample(image, label, name=f"{self.name}/{index}")

    def images(self) -> np.ndarray | None:
        """The array that CIFAR, MNIST and SVHN hold; None of datasets that read files."""
        held = getattr(self.dataset, "data", None)
        if held is None or getattr(self.dataset, "transform", None) is not None:
            return None
        images = np.asarray(held)
        if images.shape[1:2] == (3,) and images.ndim == 4:  # of SVHN and STL10
            images = images.transpose(0, 2, 3, 1)
        fits = images.dtype == np.uint8 and (images.ndim == 3 or images.shape[3:] == (3,))
        return images if fits else None

    def all_labels(self) -> np.ndarray | None:
        """None also where torchvision tells a target only together with its image."""
        targets = _targets(self.dataset)
        return None if targets is None or targets.min(initial=0) < 0 else targets

    def described(self) -> str:
        return f"{self.name}, "


def _named(name: str) -> Any:
    """A dataset class of torchvision."""
    known = [key for key, value in vars(datasets).items() if inspect.isclass(value)]
    if name not in known:
        raise ConfigError(
            f"torchvision.dataset: torchvision has no dataset {name!r}"
            f"{did_you_mean(name, known) or ';'} known: {', '.join(sorted(known))}"
        )
    return getattr(datasets, name)


def _split(entry: Any, name: str, split: str | None) -> dict[str, Any]:
    """How this dataset is told its part: `train`, `split`, or not at all."""
    parameters = inspect.signature(entry).parameters
    if "split" in parameters:
        return {} if split is None else {"split": split}
    if "train" not in parameters and split is not None:
        raise ConfigError(f"torchvision.split: {name} has no parts; set split: null")
    if "train" in parameters and split not in ("train", "test"):
        raise ConfigError(f"torchvision.split: {name} has train and test, no {split!r}")
    return {"train": split == "train"} if "train" in parameters else {}


def _opened(entry: Any, root: str, download: bool, given: dict[str, Any]) -> Any:
    parameters = inspect.signature(entry).parameters
    if unknown := [key for key in given if key not in parameters and "kwargs" not in parameters]:
        raise ConfigError(
            f"torchvision.options: {entry.__name__} has no parameter {unknown[0]!r}"
            f"{did_you_mean(unknown[0], parameters) or ';'} accepted: {', '.join(parameters)}"
        )
    if "root" in parameters:
        given = {"root": root, **given}
    if "download" in parameters:
        given = {"download": download, **given}
    try:
        return entry(**given)
    except (RuntimeError, ValueError, OSError, ImportError) as error:
        raise ConfigError(
            f"torchvision: {entry.__name__} cannot be opened in {root!r} ({error}); check root,"
            " split and options, or set download: true"
        ) from error


def _targets(dataset: Any) -> np.ndarray | None:
    """The class ids of all images, where the dataset holds them in an array."""
    for attribute in ("targets", "labels", "_labels"):
        if (held := getattr(dataset, attribute, None)) is not None:
            array = np.asarray(held)
            return array if array.ndim == 1 and array.dtype.kind in "iu" else None
    return None


def _classes(dataset: Any) -> list[str] | None:
    """The names of the classes; those of ImageNet are tuples of synonyms."""
    names = getattr(dataset, "classes", None)
    return names and [name if isinstance(name, str) else ", ".join(name) for name in names]


def _is_class(target: Any) -> bool:
    return isinstance(target, (int, np.integer)) and int(target) >= 0
