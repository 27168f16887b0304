"""Which training images are in a test set as well, by the cosine of their features.

Legend: N training images of a block, M test images, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vissl_lite.errors import ConfigError
from vissl_lite.extract.nearest import Features
from vissl_lite.progress import counter

ROWS = 4096  # test images that are compared at once


@dataclass
class Pairs:
    """Training images and the test image nearest to each, most alike first.

    Attributes:
        train, test: int64 [P], places in their sources.
        split: int64 [P], which of the test sets.
        cosine: float32 [P].
        compared: training images that were looked at.
        counts: int64 [`BINS`], of all of them by cosine; those below 0 are in the first.
    """

    train: np.ndarray
    test: np.ndarray
    split: np.ndarray
    cosine: np.ndarray
    compared: int
    counts: np.ndarray


BINS = 200  # of cosines from 0 to 1


def find(
    train: Features, tests: Sequence[Features], layer: str, floor: float, device: torch.device
) -> Pairs:
    """Every training image with a cosine of `floor` or more to some test image.

        best_n = max over all test images m of x_n . y_m / (|x_n| |y_m|)

    One block of training rows and all test rows are in memory. Rows of broken images (NaN) are no
    duplicates of anything.

    Raises:
        ConfigError: a set without this layer, or features of another model.
    """
    for features in tests:
        _check_comparable(train.meta, features.meta, layer)
    units = [_units(features, layer, device) for features in tests]
    rows: list[list[np.ndarray]] = []
    counts, compared = np.zeros(BINS, np.int64), 0
    with counter("comparing training images", len(train)) as progress:
        for start, block in train.blocks(layer):
            x_ND, valid_N = _unit(torch.from_numpy(np.array(block, np.float32)).to(device))
            cosine_N, split_N, test_N = (t.cpu().numpy() for t in best(x_ND, units))
            valid = valid_N.cpu().numpy()
            counts += np.histogram(cosine_N[valid].clip(0, 1), BINS, (0, 1))[0]
            compared += int(valid.sum())
            near = np.flatnonzero(valid & (cosine_N >= floor))
            rows.append([start + near, test_N[near], split_N[near], cosine_N[near]])
            progress.add(len(block))
    columns = [np.concatenate(column) for column in zip(*rows)]
    order = np.lexsort((columns[0], -columns[3]))
    return Pairs(*(column[order] for column in columns), compared, counts)


def best(x_ND: Tensor, tests: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """[N] each: the largest cosine, in which test set, and where in it; of equal ones the first.

    Args:
        x_ND: rows of length 1.
        tests: of each test set rows of length 1, [M, D], and their places in it, [M].
    """
    cosine_N = x_ND.new_full((len(x_ND),), -2.0)
    split_N = torch.zeros(len(x_ND), dtype=torch.int64, device=x_ND.device)
    test_N = torch.zeros_like(split_N)
    for s, (y_MD, place_M) in enumerate(tests):
        for start in range(0, len(y_MD), ROWS):
            found_N, nearest_N = (x_ND @ y_MD[start : start + ROWS].T).max(dim=1)
            better_N = found_N > cosine_N
            cosine_N = torch.where(better_N, found_N, cosine_N)
            split_N = torch.where(better_N, s, split_N)
            test_N = torch.where(better_N, place_M[start + nearest_N], test_N)
    return cosine_N.clamp(max=1), split_N, test_N


def _units(features: Features, layer: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of length 1 of the images that are not broken, and their places."""
    rows = [torch.from_numpy(np.array(block, np.float32)) for _, block in features.blocks(layer)]
    y_MD, valid_M = _unit(torch.cat(rows).to(device))
    return y_MD[valid_M], valid_M.nonzero()[:, 0]


def _unit(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of length 1, and which of them are no NaN; the others become zero."""
    valid_N = x_ND.isfinite().all(dim=1)
    x_ND = torch.where(valid_N[:, None], x_ND, 0)
    largest_N1 = x_ND.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(x_ND.dtype).tiny)
    return F.normalize(x_ND / largest_N1, dim=1), valid_N  # squares of large features overflow


def _check_comparable(train: dict, test: dict, layer: str) -> None:
    for meta in (train, test):
        if layer not in meta["layers"]:
            raise ConfigError(
                f"duplicates --layer: no features of {layer!r}; there are"
                f" {', '.join(meta['layers'])}"
            )
    same = ("digest", "size", "transforms", "mean", "std")
    if differ := [key for key in same if train.get(key) != test.get(key)]:
        raise ConfigError(
            f"duplicates: the features are not of one model and one way of seeing images"
            f" ({', '.join(differ)} differ); extract them alike"
        )
