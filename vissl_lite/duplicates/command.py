"""`vissl-lite duplicates`: training images that are in a test set too, and a list to leave out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vissl_lite.duplicates.find import Pairs, find
from vissl_lite.duplicates.page import write_page
from vissl_lite.duplicates.threshold import choose, read_sample, sample, write_sample
from vissl_lite.errors import ConfigError
from vissl_lite.extract.stored import open_features
from vissl_lite.parallel.process import choose_device
from vissl_lite.plugins import load_entries
from vissl_lite.sources.without import write_list
from vissl_lite.words import Parser

USAGE = """usage: vissl-lite duplicates TRAIN TEST [TEST ...] --out DIR [options]

Finds the training images that are, to a model, the same as a test image. TRAIN and TEST are
features that vissl-lite extract has written with one model: any trunk, or perceptual_hash for
copies that are merely scaled or compressed again.

--out DIR         gets duplicates.tsv, the list for the source `without`; pairs.html, the pairs to
                  look at; pairs.tsv, all of them; sample.tsv, pairs to judge
--threshold T     cosine from which on two images are the same; default 0.95
--sample FILE     sample.tsv with its first column filled in: chooses the threshold
--floor F         pairs below it are not kept; default: 0.25 below the threshold
--judge N         pairs in sample.tsv; default 100
--layer NAME      of the features; default: the first
--device D        auto (default), cpu or cuda

train without them:  data.source='{name: without, source: {...}, list: DIR/duplicates.tsv}'
"""
THRESHOLD, MARGIN = 0.95, 0.25


def main(words: Sequence[str]) -> int:
    """Returns the exit code.

    Raises:
        ConfigError: a mistake in the words, or features that cannot be compared.
    """
    if not words or {"-h", "--help"} & set(words):
        print(USAGE)
        return 0
    load_entries()
    options = _parsed(words)
    threshold, chosen_by = options.threshold, "given by --threshold"
    if options.sample:
        threshold, chosen_by = choose(*read_sample(options.sample))
    elif threshold is None:
        threshold, chosen_by = THRESHOLD, "the default; look at the pairs, and judge some"
    floor = threshold - MARGIN if options.floor is None else options.floor
    if floor > threshold:
        raise ConfigError(f"duplicates --floor: {floor:g} is above the threshold {threshold:g}")
    _run(options, threshold, chosen_by, floor)
    return 0


def _run(options: argparse.Namespace, threshold: float, chosen_by: str, floor: float) -> None:
    train, *tests = (open_features(path) for path in options.features)
    layer = options.layer or next(iter(train.meta["layers"]))
    pairs = find(train, tests, layer, floor, choose_device(options.device))
    names = [
        (train.name(int(n)), tests[s].name(int(m)))
        for n, m, s in zip(pairs.train, pairs.test, pairs.split)
    ]
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    left_out = pairs.cosine >= threshold
    write_list(
        out / "duplicates.tsv",
        {int(n): names[p][0] for p, n in enumerate(pairs.train) if left_out[p]},
    )
    _write_pairs(out / "pairs.tsv", pairs, names)
    judged = _write_sample(out / "sample.tsv", pairs, names, options.judge)
    metas = [features.meta for features in (train, *tests)]
    text = write_page(pairs, names, threshold, chosen_by, metas, judged)
    (out / "pairs.html").write_text(text, encoding="utf-8")
    print(summary(out, pairs, int(left_out.sum()), threshold, chosen_by))


def summary(out: Path, pairs: Pairs, left_out: int, threshold: float, chosen_by: str) -> str:
    """What was found and what to do with it, in a few lines."""
    return "\n".join(
        [
            f"{out}",
            f"  compared   {pairs.compared:,} training images",
            f"  duplicates {left_out:,}, cosine {threshold:.4f} or more ({chosen_by})",
            f"  look       {out / 'pairs.html'}",
            f"  judge      fill in {out / 'sample.tsv'}, then again with --sample",
            f"  leave out  {{name: without, source: ..., list: {out / 'duplicates.tsv'}}}",
        ]
    )


def _write_pairs(file: Path, pairs: Pairs, names: list[tuple[str, str]]) -> None:
    lines = ["cosine\tindex\ttest set\ttest index\tname\ttest name"]
    columns = zip(pairs.cosine, pairs.train, pairs.split, pairs.test, names)
    lines += [f"{c:.6f}\t{n}\t{s}\t{m}\t{a}\t{b}" for c, n, s, m, (a, b) in columns]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_sample(file: Path, pairs: Pairs, names: list[tuple[str, str]], size: int) -> list[int]:
    """The pairs of the sample; a sample that is there already, maybe judged, stays."""
    if not len(pairs.cosine):
        return []
    chosen, weight = sample(pairs, size)
    rows = [
        ("", f"{pairs.cosine[p]:.6f}", f"{w:g}", *names[p], i + 1)
        for i, (p, w) in enumerate(zip(chosen.tolist(), weight.tolist()))
    ]
    if not file.is_file():
        write_sample(file, rows)
    return np.asarray(chosen).tolist()


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser("duplicates")
    parser.add_argument("features", nargs="+", metavar="FEATURES", type=_path)
    parser.add_argument("--out", required=True, type=_path)
    parser.add_argument("--threshold", type=_cosine)
    parser.add_argument("--sample", type=_path)
    parser.add_argument("--floor", type=_cosine)
    parser.add_argument("--judge", type=int, default=100)
    parser.add_argument("--layer")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_intermixed_args(words)
    if len(options.features) < 2:
        raise ConfigError("duplicates: give features of training images, then of test images")
    return options


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _cosine(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not -1 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no cosine; give -1 to 1")
    return value
