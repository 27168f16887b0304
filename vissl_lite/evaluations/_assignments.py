"""Which cluster each image is in, as a Parquet file.

Shape suffixes: N images, B of a block, D features, K clusters.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from vissl_lite.engine.features import FeatureSet

BLOCK_ROWS = 8192  # images whose distances are computed together


class Split(NamedTuple):
    """The images of one split, and in which cluster they are."""

    source: Any
    images: FeatureSet
    x_ND: np.ndarray
    cluster_N: np.ndarray


def write_assignments(file: Path, splits: Mapping[str, Split], centroid_KD: np.ndarray) -> None:
    """Writes the whole file or none: one row per image, split after split, each in the order
    of its source.

    Columns: split, index (position in the source), name, label, cluster, distance (Euclidean, to
    the centroid of the cluster).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [pa.table(_columns(name, of, centroid_KD)) for name, of in splits.items()]
    tmp = file.with_suffix(".tmp")
    pq.write_table(pa.concat_tables(tables), tmp, compression="zstd")
    os.replace(tmp, file)


def _columns(split: str, of: Split, centroid_KD: np.ndarray) -> dict[str, Any]:
    size, index_N = len(of.cluster_N), of.images.index_N
    index = list(range(size)) if index_N is None else index_N.tolist()
    return {
        "split": [split] * size,
        "index": index,
        "name": [of.source[i].name for i in index],
        "label": of.images.label_N.numpy(),
        "cluster": of.cluster_N.astype(np.int32),
        "distance": distances(of.x_ND, centroid_KD, of.cluster_N),
    }


def distances(x_ND: np.ndarray, centroid_KD: np.ndarray, cluster_N: np.ndarray) -> np.ndarray:
    """[N], float32: |x_n - centroid of the cluster of n|."""
    blocks = [slice(i, i + BLOCK_ROWS) for i in range(0, len(x_ND), BLOCK_ROWS)]
    found = [np.linalg.norm(x_ND[b] - centroid_KD[cluster_N[b]], axis=1) for b in blocks]
    return np.concatenate(found).astype(np.float32)
