"""`vissl-lite duplicates`: training images that are in a test set too, and a list to leave out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vissl_lite.duplicates.find import Pairs, find
from vissl_lite.duplicates.page import write_page
from vissl_lite.duplicates.threshold import choose, read_sample, sample, sampled, write_sample
from vissl_lite.errors import ConfigError
from vissl_lite.extract.stored import open_features
from vissl_lite.io import replace_text
from vissl_lite.parallel.process import choose_device
from vissl_lite.plugins import load_entries
from vissl_lite.sources.without import one_line, write_list
from vissl_lite.words import Parser, results_folder, whole

USAGE = """usage: vissl-lite duplicates TRAIN TEST [TEST ...] --out DIR [options]

Finds the training images that are, to a model, the same as a test image. TRAIN and TEST are
features that vissl-lite extract has written with one model: any trunk, or perceptual_hash for
copies that are merely scaled or compressed again.

--out DIR         gets duplicates.tsv, the list for the source `without`; pairs.html, the pairs to
                  look at; pairs.tsv, all of them; sample.tsv, pairs to judge
--threshold T     cosine from which on two images are the same; default 0.95; 1: equal features
--sample FILE     sample.tsv with its first column filled in: chooses the threshold
--floor F         pairs below it are not kept; default: 0.25 below the threshold
--judge N         pairs in sample.tsv; default 100
--layer NAME      of the features; default: the first
--device D        auto (default), cpu or cuda

train without them:  data.source='{name: without, source: {...}, list: DIR/duplicates.tsv}'
"""
THRESHOLD, MARGIN = 0.95, 0.25
ROUNDING = 1e-6  # by so much float32 may miss a cosine of 1


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
    results_folder(options.out, "duplicates --out")
    _run(options, threshold, chosen_by, floor)
    return 0


def _run(options: argparse.Namespace, threshold: float, chosen_by: str, floor: float) -> None:
    train, *tests = (open_features(path) for path in options.features)
    layer = options.layer or next(iter(train.meta["layers"]))
    pairs = find(train, tests, layer, floor, choose_device(options.device))
    names = [
        (one_line(train.name(int(n))), one_line(tests[s].name(int(m))))
        for n, m, s in zip(pairs.train, pairs.test, pairs.split)
    ]
    out: Path = options.out
    left_out = pairs.cosine >= threshold
    part = out / "duplicates.tmp"  # a list that is cut off would pass for a whole one
    write_list(part, {int(n): names[p][0] for p, n in enumerate(pairs.train) if left_out[p]})
    part.replace(out / "duplicates.tsv")
    columns = [(a.replace("\t", " "), b.replace("\t", " ")) for a, b in names]
    _write_pairs(out / "pairs.tsv", pairs, columns)
    judged = _write_sample(out / "sample.tsv", pairs, columns, options.judge)
    metas = [features.meta for features in (train, *tests)]
    text = write_page(pairs, names, threshold, chosen_by, metas, judged)
    replace_text(out / "pairs.html", text)
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
    columns = zip(pairs.cosine.tolist(), pairs.train, pairs.split, pairs.test, names)
    lines += [f"{_text(c)}\t{n}\t{s}\t{m}\t{a}\t{b}" for c, n, s, m, (a, b) in columns]
    replace_text(file, "\n".join(lines) + "\n")


def _write_sample(
    file: Path, pairs: Pairs, names: list[tuple[str, str]], size: int
) -> dict[int, int]:
    """Number -> pair of the sample; a sample that is there already, maybe judged, stays."""
    if len(pairs.cosine) and not file.is_file():
        chosen, weight = sample(pairs, size)
        rows = [
            ("", _text(float(pairs.cosine[p])), f"{w:g}", *names[p], i + 1)
            for i, (p, w) in enumerate(zip(chosen.tolist(), weight.tolist()))
        ]
        write_sample(file, rows)
    known = {(_text(c), *names[p]): p for p, c in enumerate(pairs.cosine.tolist())}
    numbers = sampled(file) if file.is_file() else {}
    return {number: known[pair] for number, pair in numbers.items() if pair in known}


def _text(cosine: float) -> str:
    """All its digits: a threshold at a judged pair must not miss that pair."""
    return f"{cosine:.9g}"


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser("duplicates")
    parser.add_argument("features", nargs="+", metavar="FEATURES", type=_path)
    parser.add_argument("--out", required=True, type=_path)
    parser.add_argument("--threshold", type=_cosine)
    parser.add_argument("--sample", type=_path)
    parser.add_argument("--floor", type=_cosine)
    parser.add_argument("--judge", type=whole(10, 10**6), default=100)
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
    return min(value, 1 - ROUNDING)
