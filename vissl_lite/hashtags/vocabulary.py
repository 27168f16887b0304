"""From counted tags to classes: merged, filtered, in order."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from vissl_lite.hashtags.lexicon import SYNSET, Lexicon

SLACK = 4  # times `top` of single tags are held before the rarest are dropped


@dataclass(frozen=True, slots=True)
class TagClass:
    """Tags that mean the same.

    Attributes:
        name: of the alias file, else the most frequent member.
        images: that have one of the members.
        members: tags with the number of images of each, most frequent first.
        synset: ImageNet's name of the WordNet synset, "n02132136", or "".
    """

    name: str
    images: int
    members: tuple[tuple[str, int], ...]
    synset: str = ""


@dataclass
class Tally:
    """What was counted, and where it went; uses are pairs (image, tag).

    Attributes:
        frequency: number of tags by their count.
        missed: the most frequent tags that a given vocabulary lacks; None without one.
    """

    tags: int = 0
    uses: int = 0
    frequency: Counter[int] = field(default_factory=Counter)
    left_out_tags: int = 0  # blocked, no target, no noun
    left_out_uses: int = 0
    rare_classes: int = 0  # below the least count
    beyond_classes: int = 0  # behind the most frequent `top`
    missed: list[tuple[str, int]] | None = None

    def add(self, count: int) -> None:
        self.tags += 1
        self.uses += count
        self.frequency[count] += 1

    def leave_out(self, count: int) -> None:
        self.left_out_tags += 1
        self.left_out_uses += count


def settle(
    counts: Iterable[tuple[str, int]],
    overlaps: Counter[str],
    lexicon: Lexicon,
    min_count: int,
    top: int | None,
) -> tuple[list[tuple[str, TagClass]], Tally]:
    """The classes with their keys, most frequent first, equal ones by name: by class id.

        images(class) = sum of its members' images - overlap of these images

    A tag that stands alone under its key is dropped at once if it is rare, so that memory holds
    what is kept, not all that was counted.

    Args:
        counts: tags with the number of images of each.
        overlaps: key -> how often an image was counted again because of a second member.
    """
    tally, alone = Tally(), []
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    for tag, count in counts:
        tally.add(count)
        key = lexicon.key(tag)
        if key is None:
            tally.leave_out(count)
        elif key != tag or tag in lexicon.canonical or lexicon.targets is not None:
            groups[key][tag] = count
        elif count < min_count:
            tally.rare_classes += 1
        else:
            alone.append((-count, tag))
            if top and len(alone) > SLACK * top + 1000:
                alone, dropped = heapq.nsmallest(top, alone), len(alone) - top
                tally.beyond_classes += dropped
    classes = [(tag, TagClass(tag, -count, ((tag, -count),))) for count, tag in alone]
    classes += [(key, _class(key, tags, overlaps[key], lexicon)) for key, tags in groups.items()]
    kept = [pair for pair in classes if pair[1].images >= min_count]
    kept.sort(key=lambda pair: (-pair[1].images, pair[1].name))
    tally.rare_classes += len(classes) - len(kept)
    tally.beyond_classes += max(0, len(kept) - (top or len(kept)))
    return kept[:top], tally


def _class(key: str, tags: dict[str, int], overlap: int, lexicon: Lexicon) -> TagClass:
    uses: Counter[str] = Counter()
    for tag, count in tags.items():
        uses[lexicon.aliases.get(tag, tag)] += count
    names = [name for name in uses if name in lexicon.canonical] or list(tags)
    name = min(names, key=lambda name: (-uses[name], name))
    members = tuple(sorted(tags.items(), key=lambda pair: (-pair[1], pair[0])))
    synset = "n" + key.removeprefix(SYNSET) if key.startswith(SYNSET) else ""
    return TagClass(name, sum(tags.values()) - overlap, members, synset)
