"""Images most like one image. Legend: N rows of a block, D features, k neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vissl_lite.data.decode import BrokenImage
from vissl_lite.errors import ConfigError
from vissl_lite.extract.parquet import ParquetFeatures
from vissl_lite.extract.stored import FolderFeatures
from vissl_lite.extract.subject import Subject

Features = FolderFeatures | ParquetFeatures


def nearest(
    query_D: np.ndarray, features: Features, layer: str, k: int, leave_out: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of the largest cosine, largest first; of equal ones the first in the source.

        cos(q, x) = q.x / (|q| |x|)                          in float32; 0 if x is zero

    One block of rows is in memory at a time. Rows of broken images (NaN) are left out.

    Args:
        leave_out: a row that is not looked at, the query's own.

    Returns:
        Cosines [k] and indices [k]; fewer if there are fewer rows.
    """
    q_D = _unit(query_D[None])[0]
    cosine, index = np.empty(0, np.float32), np.empty(0, np.int64)
    for start, x_ND in features.blocks(layer):
        cosine_N = _unit(x_ND) @ q_D
        if leave_out is not None and start <= leave_out < start + len(x_ND):
            cosine_N[leave_out - start] = np.nan
        kept = np.flatnonzero(~np.isnan(cosine_N))
        cosine = np.concatenate([cosine, cosine_N[kept]])
        index = np.concatenate([index, start + kept])
        best = np.argsort(-cosine, kind="stable")[:k]
        cosine, index = cosine[best], index[best]
    return cosine, index


def _unit(x_ND: np.ndarray) -> np.ndarray:
    x_ND = np.asarray(x_ND, np.float32)
    largest_N1 = np.abs(x_ND).max(axis=1, keepdims=True)  # squares of large features overflow
    x_ND = x_ND / np.where(largest_N1 == 0, 1, largest_N1)
    norm_N1 = np.linalg.norm(x_ND, axis=1, keepdims=True)
    return x_ND / np.where(norm_N1 == 0, 1, norm_N1)


def row_of(features: Features, layer: str, index: int) -> np.ndarray:
    """
    Raises:
        ConfigError: there is no such image, or it is broken.
    """
    if index >= len(features):
        raise ConfigError(
            f"nearest: no image {index}; the features have the images 0 to {len(features) - 1}"
        )
    row_D = features.row(layer, index)
    if np.isnan(row_D).any():
        raise ConfigError(
            f"nearest: image {index} ({features.name(index)}) is broken; it has no row"
        )
    return row_D


@torch.no_grad()
def features_of(image: Path, meta: dict[str, Any], layer: str) -> np.ndarray:
    """[D] of an image file, computed as those of `meta` were, but in float32 on the CPU.

    Raises:
        ConfigError: the image cannot be read, or the model has gone or changed.
    """
    subject = Subject.load(meta["weights"], meta["size"])
    if changed := [key for key, v in subject.description.items() if meta[key] != v]:
        raise ConfigError(
            f"nearest: {meta['weights']} has changed since the features were extracted"
            f" ({', '.join(changed)}); extract them again, or ask by the index of an image"
        )
    images_1BHWC = np.zeros((1, 1, meta["size"], meta["size"], 3), np.uint8)
    try:
        draws = subject.views.draw(0, 0, np.zeros(1, np.int64))
        subject.views.write(str(image), str(image), draws, 0, [images_1BHWC])
    except BrokenImage as error:
        raise ConfigError(f"nearest: {error}") from None
    found = subject.model.layer_features(torch.from_numpy(images_1BHWC[0]), [layer])
    return found[layer][0].numpy()
