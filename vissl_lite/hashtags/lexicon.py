"""Which class a tag belongs to: a function of the tag alone, so every process decides alike."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vissl_lite.errors import ConfigError
from vissl_lite.hashtags.tags import tag_of
from vissl_lite.hashtags.wordnet import WordNet, squeezed

SYNSET = "wn:"  # begins the keys that are synsets; no tag has a colon


@dataclass(frozen=True)
class Lexicon:
    """The rules of a vocabulary. Tags with the same key are one class.

        key(tag) = none               a blocked tag, or one that is no target, or no noun (`nouns`)
                   key(canonical)     an alias
                   "wn:02132136"      the first sense of a noun, the first among the targets if any
                   tag                else

    Attributes:
        aliases: alias -> canonical tag.
        canonical: first words of the alias file.
        apart: canonical tags alone in their line, which are not looked up in WordNet.
    """

    aliases: dict[str, str] = field(default_factory=dict)
    canonical: frozenset[str] = frozenset()
    apart: frozenset[str] = frozenset()
    blocked: frozenset[str] = frozenset()
    wordnet: WordNet | None = None
    targets: frozenset[str] | None = None
    nouns: bool = False

    def key(self, tag: str) -> str | None:
        name = self.aliases.get(tag, tag)
        if tag in self.blocked or name in self.blocked:
            return None
        senses = () if name in self.apart else self.senses(name)
        if self.targets is not None:
            return next((key for key in (*senses, squeezed(name)) if key in self.targets), None)
        return senses[0] if senses else None if self.nouns else name

    def senses(self, tag: str) -> tuple[str, ...]:
        """Keys of the synsets of a tag, the preferred one first."""
        offsets = self.wordnet.senses(tag) if self.wordnet else ()
        return tuple(f"{SYNSET}{offset:08d}" for offset in offsets)


def read_aliases(path: str) -> tuple[dict[str, str], frozenset[str], frozenset[str]]:
    """`aliases`, `canonical` and `apart` of a file with lines "canonical TAB alias TAB alias ...".

    Raises:
        ConfigError: a word stands in two lines, unless as the canonical one of both.
    """
    lines: dict[str, list[str]] = {}
    places: dict[str, tuple[int, str]] = {}
    apart = set()
    for number, line in _lines(path, "--aliases"):
        first, *rest = [word for word in map(tag_of, line.split("\t")) if word] or [""]
        if not first:
            raise ConfigError(f"hashtags build: --aliases {path}, line {number} names no tag")
        for word in (first, *rest):
            before, owner = places.setdefault(word, (number, first))
            if owner != first:
                raise ConfigError(
                    f"hashtags build: --aliases {path}: {word!r} stands in lines {before} and"
                    f" {number}, for {owner!r} and {first!r}; leave it in one of them"
                )
        lines.setdefault(first, []).extend(rest)
        apart |= set() if rest else {first}
    aliases = {word: first for first, rest in lines.items() for word in rest if word != first}
    return aliases, frozenset(lines), frozenset(apart)


def read_blocked(path: str) -> frozenset[str]:
    """The tags of a file, one per line."""
    return frozenset(filter(None, (tag_of(line) for _, line in _lines(path, "--block"))))


def read_targets(path: str, wordnet: WordNet | None) -> list[frozenset[str]]:
    """The keys that each line of a file of target classes stands for.

    A line is a class: names with commas between them, "tench, Tinca tinca", or an ImageNet id,
    alone or in front of them, "n01440764 tench". An id is a synset; names are the first synset that
    all of them share, or the first sense of each where there is none.
    """
    lexicon = Lexicon(wordnet=wordnet)
    found = []
    for number, line in _lines(path, "--targets"):
        offset = re.match(r"n(\d{8})\b", line)
        if offset and wordnet:
            found.append(frozenset({SYNSET + offset[1]}))
            continue
        names = [
            tag for tag in map(tag_of, line[offset.end() if offset else 0 :].split(",")) if tag
        ]
        if not names:
            raise ConfigError(
                f"hashtags build: --targets {path}, line {number} names no class, it is"
                f" {line[:40]!r}; ids alone need --wordnet"
            )
        found.append(_keys(names, lexicon))
    return found


def _keys(names: list[str], lexicon: Lexicon) -> frozenset[str]:
    senses = {name: lexicon.senses(name) for name in names}
    known = [keys for keys in senses.values() if keys]
    words = frozenset(squeezed(name) for name in names if not senses[name])
    shared = [key for key in known[0] if all(key in keys for keys in known)] if known else []
    return words | (frozenset(shared[:1]) or frozenset(keys[0] for keys in known))


def _lines(path: str, option: str) -> Iterator[tuple[int, str]]:
    """Numbered lines, without empty ones.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(f"hashtags build: {option} {path} cannot be read: {reason}") from error
    return ((n, line.strip()) for n, line in enumerate(text.split("\n"), 1) if line.strip())
