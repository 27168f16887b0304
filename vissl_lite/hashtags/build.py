"""Builds a vocabulary: finds the tags of captions, settles what the classes are, names them.

The captions are read once: numbers stand for their tags on disk until the classes are known.
"""

import shutil
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from vissl_lite.errors import ConfigError
from vissl_lite.hashtags import folder
from vissl_lite.hashtags.cover import cover, read_vocabulary, tags_of
from vissl_lite.hashtags.lexicon import Lexicon, read_aliases, read_blocked, read_targets
from vissl_lite.hashtags.page import page
from vissl_lite.hashtags.passes import Find
from vissl_lite.hashtags.pool import mapped
from vissl_lite.hashtags.read import Captions
from vissl_lite.hashtags.spill import Spill
from vissl_lite.hashtags.statistics import Seen, statistics
from vissl_lite.hashtags.vocabulary import TagClass, Tally, settle
from vissl_lite.hashtags.wordnet import read_wordnet
from vissl_lite.progress import counter
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
        vocabulary: folder, whose classes are taken as they are, without any of the above.
    """

    min_count: int = 1
    top: int | None = None
    nouns: bool = False
    wordnet: str | None = None
    aliases: str | None = None
    block: str | None = None
    targets: str | None = None
    vocabulary: str | None = None


def build(captions: Captions, rules: Rules, out: Path, processes: int) -> dict[str, Any]:
    """Makes the folder `out` (`folder.py`) and returns its statistics.

    The result is the same, byte for byte, for any number of processes. Memory holds a few batches
    of captions, a million counts, and the classes that are kept, however many captions there are.

    Raises:
        ConfigError: something is wrong with the files, or no class is left.
        BuildStopped: the disk is full or cannot be written, or a process was killed.
    """
    known = _vocabulary(rules)
    lexicon, targets = (Lexicon(tags_of(known)), None) if known else _lexicon(rules)
    with folder.new_folder(out) as new:
        before = {str(file): stamp(file) for file in captions.files}
        spill = Spill(new / "spill")
        seen, overlaps = _find(captions, lexicon, spill, processes)
        if known:
            keyed, tally = cover(spill.counts, overlaps, known)
        else:
            counts = spill.counts.sorted()
            keyed, tally = settle(counts, overlaps, lexicon, rules.min_count, rules.top)
        if not any(each.images for _, each in keyed):
            raise ConfigError(_nothing_left(tally, rules))
        classes = [each for _, each in keyed]
        folder.write_classes(new / CLASSES, known or classes)
        meta = _meta(captions, rules, digest(new / CLASSES))
        seen.classes_per_image = _write_images(new / folder.IMAGES, spill, classes, meta, seen)
        shutil.rmtree(spill.folder)
        if before != {str(file): stamp(file) for file in captions.files}:
            raise ConfigError("hashtags build: the captions changed meanwhile; start again")
        numbers = statistics(seen, tally, classes, targets, {key for key, _ in keyed})
        folder.write_json(new / folder.META, meta)
        folder.write_json(new / folder.STATISTICS, numbers)
        (new / folder.PAGE).write_text(page(numbers, classes), encoding="utf-8")
    return numbers


def _vocabulary(rules: Rules) -> list[TagClass] | None:
    """The classes that are given."""
    if rules.vocabulary is None:
        return None
    others = [
        f"--{each.name.replace('_', '-')}"
        for each in fields(rules)
        if each.name != "vocabulary" and getattr(rules, each.name) != each.default
    ]
    if others:
        raise ConfigError(
            "hashtags build: --vocabulary takes the classes as they are; leave out"
            f" {', '.join(others)}"
        )
    return read_vocabulary(rules.vocabulary)


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


def _find(
    captions: Captions, lexicon: Lexicon, spill: Spill, processes: int
) -> tuple[Seen, Counter[str]]:
    """Tags of all images into `spill`; what was seen, and overlaps (`settle`)."""
    overlaps, seen = Counter(), Seen()
    size = sum(file.stat().st_size for file in captions.files)
    with counter("finding tags, kB", size // 1000) as progress:
        for images, found in mapped(Find, (lexicon,), captions, processes):
            spill.add(images, found)
            overlaps.update(found.overlaps)
            seen.add(found)
            progress.add(captions.read // 1000 - progress.count)
        progress.add(size // 1000 - progress.count)
    spill.close()
    seen.long, seen.skipped = captions.long, dict(+captions.skipped)
    return seen, overlaps


def _write_images(
    file: Path, spill: Spill, classes: list[TagClass], meta: dict[str, Any], seen: Seen
) -> Counter[int]:
    """images.parquet; returns the number of images with 0, 1, 2, ... classes."""
    writer = folder.ImageWriter(file, meta["classes"], Path(meta["root"]))
    number_of = {tag: i for i, each in enumerate(classes) for tag, _ in each.members}
    histogram: Counter[int] = Counter()
    with counter("naming classes, images", seen.images) as progress:
        for images, counts_N, ids_T in spill.classes(number_of.get):
            writer.add(images, counts_N, ids_T)
            histogram.update(dict(enumerate(np.bincount(counts_N).tolist())))
            progress.add(len(images))
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
    if rules.vocabulary:
        return (
            f"hashtags build: none of {tally.tags:,} tags is in the vocabulary {rules.vocabulary};"
            " check --caption-column or --tags-column, and that it is the vocabulary you mean"
        )
    most = max(tally.frequency)
    return (
        f"hashtags build: no class is left of {tally.tags:,} tags, of which {tally.left_out_tags:,}"
        f" are blocked, no target or no noun; the most frequent tag is on {most:,} images and"
        f" --min-count is {rules.min_count:,}; relax one of these"
    )
