"""Builds a vocabulary: one pass over the captions counts their tags, a second one names classes."""

import contextlib
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vissl_lite.errors import ConfigError
from vissl_lite.hashtags import folder as vocabulary
from vissl_lite.hashtags.counts import TagCounts
from vissl_lite.hashtags.lexicon import Lexicon, read_aliases, read_blocked, read_targets
from vissl_lite.hashtags.page import page
from vissl_lite.hashtags.passes import Count, Name
from vissl_lite.hashtags.pool import mapped
from vissl_lite.hashtags.read import Captions
from vissl_lite.hashtags.statistics import Seen, statistics
from vissl_lite.hashtags.vocabulary import TagClass, Tally, settle
from vissl_lite.hashtags.wordnet import read_wordnet
from vissl_lite.progress import counter
from vissl_lite.shards.stopped import BuildStopped
from vissl_lite.sources._hashtags import CLASSES, VERSION, digest
from vissl_lite.sources._index import stamp


@dataclass(frozen=True)
class Rules:
    """What becomes a class.

    Attributes:
        min_count: least number of images of a class.
        top: number of classes, the most frequent ones; None: all.
        nouns: only nouns of WordNet.
        wordnet: folder; aliases, block, targets: files (`lexicon.py`).
    """

    min_count: int = 1
    top: int | None = None
    nouns: bool = False
    wordnet: str | None = None
    aliases: str | None = None
    block: str | None = None
    targets: str | None = None


def build(captions: Captions, rules: Rules, out: Path, processes: int) -> dict[str, Any]:
    """Makes the folder `out` (`folder.py`) and returns its statistics.

    The result is the same, byte for byte, for any number of processes. Memory holds a few batches
    of captions, a million counts, and the classes that are kept, however many captions there are.

    Raises:
        ConfigError: something is wrong with the files, or no class is left.
        BuildStopped: the disk is full or cannot be written, or a process was killed.
    """
    lexicon, targets = _lexicon(rules)
    with _new_folder(out) as new:
        before = {str(file): stamp(file) for file in captions.files}
        seen, keyed, tally = _count(captions, lexicon, rules, new, processes)
        if not keyed:
            raise ConfigError(_nothing_left(tally, rules))
        classes = [each for _, each in keyed]
        vocabulary.write_classes(new / CLASSES, classes)
        meta = _meta(captions, rules, digest(new / CLASSES))
        ids = {key: number for number, (key, _) in enumerate(keyed)}
        seen.classes_per_image = _name(captions, lexicon, ids, meta, new, seen.images, processes)
        if before != {str(file): stamp(file) for file in captions.files}:
            raise ConfigError("hashtags build: the captions changed meanwhile; start again")
        numbers = statistics(seen, tally, classes, targets, {key for key, _ in keyed})
        vocabulary.write_json(new / vocabulary.META, meta)
        vocabulary.write_json(new / vocabulary.STATISTICS, numbers)
        text = page(numbers, classes)
        (new / vocabulary.PAGE).write_text(text, encoding="utf-8")
    return numbers


def _lexicon(rules: Rules) -> tuple[Lexicon, list[frozenset[str]] | None]:
    """The rules of the files, and the keys of every target."""
    if rules.nouns and not rules.wordnet:
        raise ConfigError("hashtags build: --nouns keeps nouns of WordNet; name it with --wordnet")
    wordnet = read_wordnet(rules.wordnet) if rules.wordnet else None
    aliases = read_aliases(rules.aliases) if rules.aliases else ({}, frozenset(), frozenset())
    blocked = read_blocked(rules.block) if rules.block else frozenset()
    targets = read_targets(rules.targets, wordnet) if rules.targets else None
    keys = None if targets is None else frozenset().union(*targets)
    return Lexicon(*aliases, blocked, wordnet, keys, rules.nouns), targets


def _count(
    captions: Captions, lexicon: Lexicon, rules: Rules, folder: Path, processes: int
) -> tuple[Seen, list[tuple[str, TagClass]], Tally]:
    """The first pass."""
    counts, overlaps, seen = TagCounts(folder), Counter(), Seen()
    work = ((len(images), texts) for images, texts in captions)
    with counter("counting tags, images") as progress:
        for images, found in mapped(Count, (lexicon,), work, processes):
            counts.add(found.tags, found.counts)
            overlaps.update(found.overlaps)
            seen.add(images, found)
            progress.add(images)
    seen.skipped = dict(+captions.skipped)
    keyed, tally = settle(counts.sorted(), overlaps, lexicon, rules.min_count, rules.top)
    for run in counts.runs:
        run.unlink()
    return seen, keyed, tally


def _name(
    captions: Captions,
    lexicon: Lexicon,
    ids: dict[str, int],
    meta: dict[str, Any],
    folder: Path,
    images: int,
    processes: int,
) -> Counter[int]:
    """The second pass; returns the number of images with 0, 1, 2, ... classes."""
    writer = vocabulary.ImageWriter(folder / vocabulary.IMAGES, meta["classes"], Path(meta["root"]))
    histogram: Counter[int] = Counter()
    with counter("naming classes, images", images) as progress:
        for paths, (counts_N, ids_T) in mapped(Name, (lexicon, ids), captions, processes):
            writer.add(paths, counts_N, ids_T)
            histogram.update(dict(enumerate(np.bincount(counts_N).tolist())))
            progress.add(len(paths))
    writer.close()
    return histogram


def _meta(captions: Captions, rules: Rules, classes: str) -> dict[str, Any]:
    """meta.json."""
    given = {name: getattr(rules, name) for name in ("aliases", "block", "targets")}
    extra = [Path(path).expanduser() for path in given.values() if path]
    return {
        "version": VERSION,
        "classes": classes,
        "root": str(captions.common_root()),
        "columns": asdict(captions.columns),
        "rules": asdict(rules),
        "inputs": {str(file): digest(file) for file in [*captions.files, *extra]},
    }


def _nothing_left(tally: Tally, rules: Rules) -> str:
    if not tally.tags:
        return "hashtags build: no caption has a hashtag; check --caption-column or --tags-column"
    most = max(tally.frequency)
    return (
        f"hashtags build: no class is left of {tally.tags:,} tags, of which {tally.left_out_tags:,}"
        f" are blocked, no target or no noun; the most frequent tag is on {most:,} images and"
        f" --min-count is {rules.min_count:,}; relax one of these"
    )


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes `out` when all went well, and is removed if not."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"hashtags build: --out {out} is not empty; name a new folder")
    new = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}"
    try:
        new.mkdir(parents=True)
        yield new
        os.replace(new, out)
    except OSError as error:
        raise BuildStopped(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
