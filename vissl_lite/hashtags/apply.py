"""The classes of a vocabulary for other captions than those that it was made of: held-out ones."""

import os
from collections import Counter
from pathlib import Path

import numpy as np

from vissl_lite.errors import ConfigError
from vissl_lite.hashtags.folder import ImageWriter, read_classes, read_meta
from vissl_lite.hashtags.lexicon import Lexicon
from vissl_lite.hashtags.passes import Name
from vissl_lite.hashtags.pool import mapped
from vissl_lite.hashtags.read import Captions
from vissl_lite.progress import counter
from vissl_lite.shards.stopped import as_stopped
from vissl_lite.sources._hashtags import CLASSES, digest


def apply(vocabulary: Path, captions: Captions, out: Path, processes: int) -> Counter[int]:
    """Writes a table like images.parquet; returns how many images have 0, 1, 2, ... classes.

    A tag is of a class if it is one of its members in classes.tsv, or its name. A spelling that the
    vocabulary has not seen is of none, even where an alias file or WordNet would have known it.

    Raises:
        ConfigError: no vocabulary, something is wrong with the files, or no image has a class.
        BuildStopped: the disk is full or cannot be written, or a process was killed.
    """
    classes = read_classes(vocabulary)
    read_meta(vocabulary)  # refuses another version
    members = {tag: each.name for each in classes for tag, _ in each.members}
    ids = {each.name: number for number, each in enumerate(classes)}
    tmp, histogram = out.with_name(f".{out.name}.tmp"), Counter()
    with as_stopped(out):
        writer = ImageWriter(tmp, digest(vocabulary / CLASSES), captions.common_root())
        try:
            named = mapped(Name, (Lexicon(aliases=members), ids), captions, processes)
            with counter("naming classes, images") as progress:
                for images, (counts_N, ids_T) in named:
                    writer.add(images, counts_N, ids_T)
                    histogram.update(dict(enumerate(np.bincount(counts_N).tolist())))
                    progress.add(len(images))
            writer.close()
            _check(histogram, vocabulary)
            os.replace(tmp, out)
        finally:
            tmp.unlink(missing_ok=True)
    return histogram


def _check(histogram: Counter[int], vocabulary: Path) -> None:
    if not any(count for classes, count in histogram.items() if classes):
        raise ConfigError(
            f"hashtags apply: none of {histogram.total():,} images has a class of {vocabulary};"
            " check --caption-column or --tags-column, and that it is the vocabulary you mean"
        )
