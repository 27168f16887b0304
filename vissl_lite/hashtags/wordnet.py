"""The nouns of WordNet 3.0, from the files of Debian's `wordnet-base` as they are.

    index.noun   lemma n senses P pointers senses tagged offsets
                 brown_bear n 1 3 @ ~ #m 1 0 02132136
    data.noun    offset file n words (hex) word id ...
                 02132136 05 n 03 brown_bear 0 bruin 1 Ursus_arctos 0 ...
    noun.exc     plural singular
                 aardwolves aardwolf

wndb(5) describes them. Offsets are the ids of synsets; ImageNet puts an 'n' before: "n02132136".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vissl_lite.errors import ConfigError

JOINTS = str.maketrans("", "", "_-'./ ")  # what stands between the words of a collocation
# morphy(7WN): endings of plural nouns and what they become, tried in this order
ENDINGS = (
    ("s", ""),
    ("ses", "s"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
)


@dataclass(frozen=True)
class WordNet:
    """Nouns by their letters and digits alone, so that a tag without blanks finds its lemma.

    Attributes:
        lemmas: "brownbear" -> synsets, the sense to prefer first.
        plurals: irregular ones, "mice" -> "mouse".
    """

    lemmas: dict[str, tuple[int, ...]]
    plurals: dict[str, str]

    def senses(self, tag: str) -> tuple[int, ...]:
        """Synsets of a tag, the preferred one first; () if it is no noun.

        The tag itself is looked up, then its singulars as morphy finds them: exceptions, endings.
        """
        word = squeezed(tag)
        return next((self.lemmas[w] for w in _forms(word, self.plurals) if w in self.lemmas), ())


def read_wordnet(folder: str) -> WordNet:
    """The nouns in a folder with WordNet's files, such as /usr/share/wordnet.

    WordNet orders the senses of a lemma by how often they occur in a tagged text. Where none of
    them occurs there the order says nothing, and senses that have a synonym go first: #bruin is
    the brown bear, not the Bruin of the tales, a synset of one word.

    Raises:
        ConfigError: a file is missing or of another kind.
    """
    place = Path(folder).expanduser()
    try:
        words = {int(row[0]): int(row[3], 16) for row in _rows(place / "data.noun", 4)}
        lemmas: dict[str, tuple[int, ...]] = {}
        # where two lemmas have the same letters, the one in a single word is meant: blackbird
        for row in sorted(_rows(place / "index.noun"), key=lambda row: (not row[0].isalnum(), row)):
            lemmas.setdefault(squeezed(row[0]), _senses(row, words))
        plurals = {squeezed(row[0]): squeezed(row[1]) for row in _rows(place / "noun.exc")}
    except (OSError, IndexError, ValueError, KeyError) as error:
        raise ConfigError(
            f"hashtags build: --wordnet {folder} cannot be read ({type(error).__name__}: {error});"
            " it needs index.noun, data.noun and noun.exc of WordNet 3.0, as Debian's wordnet-base"
            " puts them into /usr/share/wordnet"
        ) from error
    return WordNet(lemmas, plurals)


def squeezed(word: str) -> str:
    """Letters, digits and emoji alone: "ursus_arctos" is "ursusarctos"."""
    return word.translate(JOINTS)


def _rows(file: Path, fields: int = -1) -> Iterator[list[str]]:
    """The words of every line; the licence in front is indented."""
    with open(file, encoding="utf-8") as lines:
        yield from (line.split(None, fields) for line in lines if not line.startswith("  "))


def _senses(row: list[str], words: dict[int, int]) -> tuple[int, ...]:
    """Synsets of a line of index.noun, preferred first."""
    pointers = int(row[3])
    tagged, offsets = int(row[5 + pointers]), [int(field) for field in row[6 + pointers :]]
    if not tagged:
        offsets.sort(key=lambda offset: words[offset] == 1)
    return tuple(offsets)


def _forms(word: str, plurals: dict[str, str]) -> Iterator[str]:
    """A word and what may be its singulars."""
    yield word
    if word in plurals:
        yield plurals[word]
    if len(word) > 2 and not word.endswith("ss"):
        for ending, singular in ENDINGS:
            if word.endswith(ending):
                yield word.removesuffix(ending) + singular
