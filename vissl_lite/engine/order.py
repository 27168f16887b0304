"""The order in which a run sees its images: all alike, or rare tags more often."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vissl_lite.config import Config, Sampler
from vissl_lite.data.balance import (
    BLOCK,
    BalancedOrder,
    image_factors,
    tag_counts,
    tag_factors,
)
from vissl_lite.data.sampler import Order
from vissl_lite.errors import ConfigError
from vissl_lite.sources._columns import Column, ColumnWriter
from vissl_lite.sources._index import prepared
from vissl_lite.sources._source import ask

HASHED = 1 << 26  # bytes


def build_order(config: Config, source: Any) -> tuple[Order, list[str]]:
    """The order, and sentences on what was inferred.

    Raises:
        ConfigError: `data.sampler` asks for what the source cannot give.
    """
    if config.data.sampler.balance == "none":
        return Order.of(source, config.seed), []
    order, _, notes = balanced(config, source)
    return order, [_sentence(config.data.sampler, order, notes)]


def balanced(config: Config, source: Any) -> tuple[BalancedOrder, np.ndarray, dict[str, Any]]:
    """The order, the share [V] of its positions expected to have each tag, and notes.

    Raises:
        ConfigError: as `build_order`.
    """
    sampler = config.data.sampler
    values, offsets = classes_of(source, config.data.source["name"])
    _check(source)
    folder, notes = prepared(
        "balance",
        identity={"source": config.data.source, **asdict(sampler)},
        state={"tags": _digest(values, offsets)},
        build=partial(_build, sampler, values, offsets, source.num_classes),
    )
    columns = Column(folder / "factors.npy"), Column(folder / "ends.npy")
    order = BalancedOrder(*columns, config.seed)
    expected_V = np.load(folder / "expected.npy", allow_pickle=False)
    return order, expected_V / order.total, notes


def classes_of(source: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Tags of every image, `values[offsets[i]:offsets[i + 1]]`; a label is an image's one tag.

    Raises:
        ConfigError: the source has neither, or cannot tell without opening its images.
    """
    tags = ask(source, "all_tags")
    if tags is not None:
        return tags
    labels = ask(source, "all_labels")
    if labels is None:
        raise ConfigError(
            f"data.sampler.balance: source {name!r} has no tags or labels that are known before its"
            " images are opened; take balance none"
        )
    return labels, np.arange(len(labels) + 1)


def _check(source: Any) -> None:
    if getattr(source, "weights", None) is not None:
        raise ConfigError(
            "data.sampler.balance: a mixture with weights has its shares already; leave out the"
            " weights, or take balance none"
        )


def _digest(values: np.ndarray, offsets: np.ndarray) -> str:
    found = hashlib.blake2b(digest_size=16)
    for array in (values, offsets):
        for start in range(0, len(array), HASHED // array.itemsize):
            found.update(np.ascontiguousarray(array[start : start + HASHED // array.itemsize]).data)
    return found.hexdigest()


def _build(
    sampler: Sampler, values: np.ndarray, offsets: np.ndarray, num_tags: int, folder: Path
) -> dict[str, Any]:
    """Writes the factors and their sums; notes the shares of tags before and after."""
    images = len(offsets) - 1
    count_V = tag_counts(values, num_tags)
    factor_V = tag_factors(count_V, images, sampler.balance, sampler.threshold, sampler.smallest)
    factors = ColumnWriter(folder / "factors.npy", "float32")
    ends = ColumnWriter(folder / "ends.npy", "float64")
    expected_V, start, total = np.zeros(num_tags), 0, 0.0
    for r_N in image_factors(values, offsets, factor_V, untagged=sampler.smallest):
        factors.extend(r_N)
        ends_K = total + np.cumsum(np.add.reduceat(r_N.astype(float), range(0, len(r_N), BLOCK)))
        ends.extend(ends_K)
        total = ends_K[-1]
        bounds = np.asarray(offsets[start : start + len(r_N) + 1])
        weight_T = np.repeat(r_N, np.diff(bounds))
        expected_V += np.bincount(values[bounds[0] : bounds[-1]], weight_T, minlength=num_tags)
        start += len(r_N)
    factors.close()
    ends.close()
    np.save(folder / "expected.npy", expected_V)
    present = count_V > 0
    return {
        "images": images,
        "natural": _extremes(count_V[present] / images),
        "balanced": _extremes(expected_V[present] / total),
    }


def _extremes(share_V: np.ndarray) -> list[float]:
    return [float(share_V.max()), float(share_V.min())] if len(share_V) else [0.0, 0.0]


def _sentence(sampler: Sampler, order: BalancedOrder, notes: dict[str, Any]) -> str:
    (most, least), (most_now, least_now) = notes["natural"], notes["balanced"]
    return (
        f"sampler: {sampler.balance}, threshold {sampler.threshold:g}: {notes['images']:,} images"
        f" make epochs of {len(order):,}; the most frequent tag is in {most_now:.3%} of them"
        f" instead of {most:.3%}, the rarest in {least_now:.2g} instead of {least:.2g}"
    )
