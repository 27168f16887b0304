"""How far the classes of a vocabulary cover the tags of other captions than its own."""

import heapq
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vissl_lite.hashtags.counts import TagCounts
from vissl_lite.hashtags.folder import read_classes, read_meta
from vissl_lite.hashtags.vocabulary import TagClass, Tally

MISSED = 100  # the most frequent tags without a class, which are listed


def read_vocabulary(folder: str) -> list[TagClass]:
    """The classes of `vissl-lite hashtags build`, in a folder that may lack its images.

    Raises:
        ConfigError: the folder is none, or of another format version, or its classes were changed.
    """
    place = Path(folder).expanduser()
    classes = read_classes(place)
    read_meta(place)
    return classes


def tags_of(classes: Sequence[TagClass]) -> dict[str, str]:
    """Tag -> name of its class: the members, and the name, which an alias file may have given."""
    names = {each.name: each.name for each in classes}
    return names | {tag: each.name for each in classes for tag, _ in each.members}


def cover(
    counts: TagCounts, overlaps: Counter[str], classes: Sequence[TagClass]
) -> tuple[list[tuple[str, TagClass]], Tally]:
    """The same classes in the same order, with the counts of other captions, and their names.

    A spelling that the vocabulary has not seen has no class, even where an alias file or WordNet
    would have known it.

    Args:
        overlaps: name -> how often an image was counted again because of a second member.
    """
    name_of, tally = tags_of(classes), Tally()
    found: dict[str, dict[str, int]] = {each.name: {} for each in classes}
    for tag, count in counts.sorted():
        tally.add(count)
        if tag in name_of:
            found[name_of[tag]][tag] = count
        else:
            tally.leave_out(count)
    missed = ((-count, tag) for tag, count in counts.sorted() if tag not in name_of)
    tally.missed = [(tag, -count) for count, tag in heapq.nsmallest(MISSED, missed)]
    return [(each.name, _counted(each, found, overlaps)) for each in classes], tally


def _counted(each: TagClass, found: dict[str, dict[str, int]], overlaps: Counter[str]) -> TagClass:
    tags = found[each.name]
    members = tuple(sorted(tags.items(), key=lambda pair: (-pair[1], pair[0])))
    return TagClass(each.name, sum(tags.values()) - overlaps[each.name], members, each.synset)
