"""`vissl-lite hashtags predict`: the most probable tags of images, as a file and as a page."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vissl_lite import SOURCES
from vissl_lite.data.loader import choose_workers
from vissl_lite.errors import ConfigError
from vissl_lite.hashtags.predict import Prediction, Tagger, TrueTags
from vissl_lite.hashtags.predict_files import check_out, writer
from vissl_lite.hashtags.predict_page import Counts, predictions_page
from vissl_lite.io import replace_text
from vissl_lite.parallel.process import choose_device
from vissl_lite.plugins import load_entries
from vissl_lite.progress import counter
from vissl_lite.report.look import spread
from vissl_lite.sources._source import shown
from vissl_lite.words import SOURCE_IS, Parser, check_file, source_config, whole

USAGE = f"""usage: vissl-lite hashtags predict RUN SOURCE [key=value ...] --out FILE [options]

The most probable tags of all images of a source, in its order, by the classifier of a run.

RUN is a run (its newest checkpoint) or a checkpoint in it.
{SOURCE_IS}
Where the source has tags, they are compared by name.

--out FILE        .tsv, .jsonl or .parquet: index, image, tags, probabilities; images that cannot be
                  read are left out, and told
-k K              tags per image; default 5, or all classes where there are fewer
--page FILE.html  {{pictures}} of the images, evenly spread, with true and predicted tags
--classes FILE    names of the classes: classes.tsv, or a text file with one per line; default: the
                  classes of the images that the run was trained on
--size N          side of the images in pixels; default: that of the run
--batch-size N    images that the model sees at once; default 256
--precision P     fp32 (default), bf16, fp16
--workers N       processes that read images; default: none on a CPU, else by cores
--device D        auto (default), cpu or cuda
"""
PICTURES, TAGS = 60, 5
TOLD = 5  # broken images


def main(words: Sequence[str]) -> int:
    """The command; returns its exit code.

    Raises:
        ConfigError: a mistake in the words, in the run or in the source.
        BuildStopped: the file cannot be written.
    """
    if not words or {"-h", "--help"} & set(words):
        print(USAGE.format(pictures=PICTURES))
        return 0
    load_entries()
    options = _parsed(words)
    check_out(options.out)
    if options.page:
        check_file(options.page, "hashtags predict --page")
    device = choose_device(options.device)
    source = SOURCES.build(source_config(options.source, "hashtags predict"), "hashtags predict")
    if not len(source):
        raise ConfigError("hashtags predict: the source has no images")
    tagger = Tagger.load(options.run, options.classes, options.size)
    if options.k is None:
        options.k = min(TAGS, len(tagger.names))
    tagger.check_k(options.k)
    workers = choose_workers("auto" if options.workers is None else options.workers, device)
    how = (device, options.precision, options.batch_size, workers)
    rows = tagger(source, options.k, *how)
    _predict(tagger, source, rows, options)
    return 0


def _predict(tagger: Tagger, source: Any, rows: Any, options: argparse.Namespace) -> None:
    """Writes the rows as they come, and the page."""
    true, counts, broken = TrueTags(source), Counts(), []
    wanted, kept = set(spread(len(source), PICTURES) if options.page else ()), []
    for note in [*tagger.subject.notes, *_foreign(true, tagger)]:
        print(note)
    with writer(options.out, options.k) as add, counter("predict: images", len(source)) as count:
        for row in rows:
            count.add()
            if row.broken:
                broken.append(row)
                continue
            add(row)
            counts = counts.plus(true.of(row.index), row.tags) if true else counts
            kept += [row] if row.index in wanted else []
        if len(broken) == len(source):
            raise ConfigError(f"hashtags predict: no image can be read; {_told(broken[0])}")
    if options.page:
        text = predictions_page(kept, source, options.run, counts, len(source))
        replace_text(options.page, text)
    print(_summary(options, len(source), broken, counts))


def _foreign(true: TrueTags, tagger: Tagger) -> list[str]:
    """A note where the tags of the source cannot be compared."""
    if not true or set(true.classes) & set(tagger.names):
        return []
    return [
        f"note: none of the source's {len(true.classes):,} tags is one of the run's"
        f" {len(tagger.names):,} classes, so that no prediction can be right"
    ]


def _summary(
    options: argparse.Namespace, images: int, broken: list[Prediction], counts: Counts
) -> str:
    lines = [f"{options.out}", f"  images   {images - len(broken):,}, {options.k} tags each"]
    if broken:
        lines.append(f"  left out {len(broken):,} that cannot be read:")
        lines += [f"           {_told(row)}" for row in broken[:TOLD]]
        lines += [f"           and {len(broken) - TOLD:,} more"] * (len(broken) > TOLD)
    if counts.tagged:
        lines.append(f"  right    {counts}")
    if options.page:
        lines.append(f"  page     {options.page}")
    return "\n".join(lines)


def _told(row: Prediction) -> str:
    return f"image {row.index}, {shown(row.name)}: {shown(row.broken)}"


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser("hashtags predict")
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("source", nargs="+", metavar="SOURCE")
    parser.add_argument("--out", required=True, type=_path)
    parser.add_argument("-k", type=whole(1, 10**6))
    parser.add_argument("--page", type=_path)
    parser.add_argument("--classes")
    parser.add_argument("--size", type=whole(1, 65_535))
    parser.add_argument("--batch-size", type=whole(1, 10**6), default=256)
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--workers", type=whole(0, 4096))
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser.parse_intermixed_args(words)


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()
