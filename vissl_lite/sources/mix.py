"""Several sources as one."""

import bisect
import itertools
import math
from typing import Annotated, Any

import numpy as np

from vissl_lite import SOURCES
from vissl_lite.data.batch import Sample
from vissl_lite.errors import ConfigError
from vissl_lite.sources._source import Source, ask


@SOURCES.register("mix")
class Mix(Source):
    """Several sources behind one another; `weights` say how often each is drawn from.

    The sources keep their labels and tags, which must mean the same in all of them: sources with
    class names need the same names in the same order. Where they do not, `label_maps` translates.
    An image of a source without labels has none here either. Memory: all labels, or tags, asked for
    at once are a copy, 8 bytes each.

    Args:
        sources: configs of sources.
        weights: share of each source in what the sampler draws, any scale; default: the number of
            its images, that is, every image equally often.
        label_maps: for each source a mapping from class name, or id where it has no names, to the
            id in the mix, or null to keep its ids.

    Attributes:
        parts: number of images of each source, in order; source p starts at sum(parts[:p]).
        weights: as given, read by the sampler; or None.

    Raises:
        ConfigError: no sources, weights or maps of another length, a weight that is negative or
            all zero, different class names without maps, a class that a map lacks.
    """

    def __init__(
        self,
        sources: Annotated[list[Any], SOURCES],
        weights: list[float] | None = None,
        label_maps: list[dict[str, int] | None] | None = None,
    ):
        if not sources:
            raise ConfigError("mix.sources: is empty; name at least one source")
        self.sources = [
            SOURCES.build(config, where=f"mix.sources[{i}]") for i, config in enumerate(sources)
        ]
        _check_weights(weights, len(sources))
        if label_maps is not None and len(label_maps) != len(sources):
            raise ConfigError(
                f"mix.label_maps: {len(label_maps)} maps for {len(sources)} sources; give one each,"
                " or null for a source that keeps its ids"
            )
        maps = label_maps or [None] * len(sources)
        self.weights = weights
        self.parts = [len(source) for source in self.sources]
        self._ends = list(itertools.accumulate(self.parts))
        self._maps = [_as_array(s, m, i) for i, (s, m) in enumerate(zip(self.sources, maps))]
        self.classes = _common_names(self.sources) if label_maps is None else None
        self.num_classes = _count(self.sources, self._maps)

    def __len__(self) -> int:
        return self._ends[-1]

    def sample(self, index: int) -> Sample:
        part = bisect.bisect_right(self._ends, index)
        sample = self.sources[part][index - self._ends[part] + self.parts[part]]
        if (new := self._maps[part]) is not None:
            sample.label = None if sample.label is None else int(new[sample.label])
            sample.tags = None if sample.tags is None else [int(new[tag]) for tag in sample.tags]
        return sample

    def all_labels(self) -> np.ndarray | None:
        """None unless every source knows its labels without opening images."""
        labels = [ask(source, "all_labels") for source in self.sources]
        if any(part is None for part in labels):
            return None
        return np.concatenate([_mapped(new, part) for new, part in zip(self._maps, labels)])

    def all_tags(self) -> tuple[np.ndarray, np.ndarray] | None:
        """None unless every source has tags."""
        tags = [ask(source, "all_tags") for source in self.sources]
        if any(part is None for part in tags):
            return None
        values = [_mapped(new, values) for new, (values, _) in zip(self._maps, tags)]
        lengths = np.concatenate([np.diff(offsets) for _, offsets in tags])
        return np.concatenate(values), np.concatenate([[0], np.cumsum(lengths)])

    def described(self) -> str:
        return f"{self.sources}, "


def _check_weights(weights: list[float] | None, count: int) -> None:
    if weights is None:
        return
    if len(weights) != count:
        raise ConfigError(f"mix.weights: {len(weights)} weights for {count} sources; give one each")
    if not all(w >= 0 and math.isfinite(w) for w in weights) or sum(weights) == 0:
        raise ConfigError(f"mix.weights: {weights}; needs numbers >= 0, not all 0")


def _common_names(sources: list[Any]) -> list[str] | None:
    """The class names that all sources with names share; None if one has classes without names."""
    lists = [source.classes for source in sources if source.num_classes is not None]
    named = [names for names in lists if names is not None]
    for names, other in itertools.pairwise(named):
        if other != names:
            differ = str(sorted(set(names) ^ set(other)) or "their order")[:80]
            raise ConfigError(
                f"mix: the class names of the sources differ ({differ}); give label_maps, or the"
                " sources one vocabulary"
            )
    return named[0] if named and len(named) == len(lists) else None


def _as_array(source: Any, mapping: dict | None, part: int) -> np.ndarray | None:
    """`new[old id]`, int64, from a mapping of names or ids."""
    if mapping is None:
        return None
    mapping = {str(key): value for key, value in mapping.items()}
    names = source.classes or [str(i) for i in range(source.num_classes or 0)]
    if missing := [name for name in names if name not in mapping]:
        raise ConfigError(f"mix.label_maps[{part}]: lacks class {missing[0]!r}; give it an id")
    if negative := [name for name in names if mapping[name] < 0]:
        raise ConfigError(f"mix.label_maps[{part}].{negative[0]}: is negative; ids start from 0")
    return np.array([mapping[name] for name in names], np.int64)


def _mapped(new: np.ndarray | None, ids: np.ndarray) -> np.ndarray:
    return ids if new is None else new[ids]


def _count(sources: list[Any], maps: list[np.ndarray | None]) -> int | None:
    """One more than the largest id that a source can give."""
    counts = [
        source.num_classes if new is None else int(new.max(initial=-1)) + 1
        for source, new in zip(sources, maps)
        if source.num_classes is not None
    ]
    return max(counts, default=None)
