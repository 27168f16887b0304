"""From which cosine on two images count as the same: by hand, or by pairs that somebody judged.

Legend: P pairs of a sample.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vissl_lite.data.random import generator
from vissl_lite.duplicates.find import Pairs
from vissl_lite.errors import ConfigError

STREAM = 20  # of `generator`
COLUMNS = ("same", "cosine", "stands for", "train", "test", "page")


def sample(pairs: Pairs, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pairs to judge, spread evenly over their cosines, and for how many pairs each stands.

    The range of the cosines is cut into ten pieces of equal width; each gives as many random pairs.
    """
    low, high = float(pairs.cosine.min()), float(pairs.cosine.max())
    piece_P = np.minimum((10 * (pairs.cosine - low) / max(high - low, 1e-9)).astype(int), 9)
    chosen, weight = [], []
    for piece in np.unique(piece_P):
        there = np.flatnonzero(piece_P == piece)
        rng = generator(seed, 0, int(piece), 0, STREAM)
        some = np.sort(rng.permutation(there)[: max(1, size // 10)])
        chosen.append(some)
        weight.append(np.full(len(some), len(there) / len(some)))
    return np.concatenate(chosen), np.concatenate(weight)


def choose(same_P: np.ndarray, cosine_P: np.ndarray, weight_P: np.ndarray) -> tuple[float, str]:
    """The threshold with the fewest mistakes, and a sentence on it.

        mistakes(t) = weight of different images with cosine >= t  +  of same ones with cosine < t

    Of equally good thresholds the lowest, halfway between the two cosines that it parts.
    """
    order = np.argsort(-cosine_P, kind="stable")
    same_P, cosine_P, weight_P = same_P[order], cosine_P[order], weight_P[order]
    wrong = np.concatenate([[0], np.cumsum(weight_P * ~same_P)])
    missed = (weight_P * same_P).sum() - np.concatenate([[0], np.cumsum(weight_P * same_P)])
    edges = np.concatenate([[np.nextafter(1, 2)], cosine_P, [cosine_P[-1]]])
    possible = np.concatenate([edges[1:-1] < edges[:-2], [True]])  # equal cosines stay together
    mistakes = np.where(possible, wrong + missed, np.inf)
    taken = len(mistakes) - 1 - int(np.argmin(mistakes[::-1]))
    threshold = float((edges[taken] + edges[taken + 1]) / 2)
    found = (weight_P * same_P)[:taken].sum()
    total, all_same = weight_P[:taken].sum(), (weight_P * same_P).sum()
    return threshold, (
        f"threshold {threshold:.4f} by {len(same_P)} judged pairs: precision"
        f" {found / total if total else 1:.3f}, recall {found / all_same if all_same else 1:.3f}"
    )


def write_sample(file: Path, rows: list[tuple]) -> None:
    """A table whose first column somebody fills in with 1 (the same image) or 0."""
    lines = ["\t".join(COLUMNS), *("\t".join(map(str, row)) for row in rows)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def sampled(file: Path) -> dict[int, tuple[str, str, str]]:
    """Number on the page -> cosine, training and test name, as `write_sample` has written them."""
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()[1:]]
    whole = [row for row in rows if len(row) == len(COLUMNS) and row[5].isdecimal()]
    return {int(row[5]): (row[1], row[3], row[4]) for row in whole}


def read_sample(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """same [P] (bool), cosine [P], weight [P] of the pairs that were judged.

    Raises:
        ConfigError: no such file, another table, changed numbers, or fewer than two judgements.
    """
    if not file.is_file():
        raise ConfigError(f"duplicates --sample: no file {file}; run without --sample to get one")
    head, *lines = file.read_text(encoding="utf-8").splitlines() or [""]
    rows = [line.split("\t") for line in lines]
    judged = [row for row in rows if row[0].strip()]
    if head.split("\t")[:3] != list(COLUMNS[:3]):
        raise ConfigError(f"duplicates --sample: {file} is no sample.tsv of this command")
    if wrong := [row[0] for row in judged if row[0].strip() not in ("0", "1")]:
        raise ConfigError(f"duplicates --sample: {wrong[0]!r} in column 'same'; write 1 or 0")
    if len(judged) < 2:
        raise ConfigError(
            f"duplicates --sample: {file} has {len(judged)} judged pairs; fill in column 'same'"
            " with 1 (the same image) or 0, for ten pairs or more"
        )
    same_P = np.array([row[0].strip() == "1" for row in judged])
    try:
        cosine_P, weight_P = np.array([[float(text) for text in row[1:3]] for row in judged]).T
    except ValueError as error:
        raise ConfigError(
            f"duplicates --sample: {file} has lines without numbers ({error})"
        ) from None
    return same_P, cosine_P, weight_P
