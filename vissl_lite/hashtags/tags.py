"""What a hashtag is: rules for text in any script.

    text   NFKC, case folded, NFKC again: full-width ＃Ｓｕｎ is #sun, #Straße is #strasse
    tag    '#' and what follows of letters, marks, numbers, '_', emoji and joiners, of any script
    none   where a letter, mark, number, '_', '&' or '/' precedes the '#' (a#b, &#39;, x.com/#a)
           where the '#' is drawn as a keycap (#️⃣)
           without a letter or an emoji: #1, #_, #2_0

A hyphen, a dot or an apostrophe ends a tag, so does the next '#': #sun#sea is #sun alone, as a
letter precedes the second '#'. Variation selectors and the zero-width non-joiner are removed; the
zero-width joiner is kept between two emoji, so that 👩‍🚀 stays one picture, and removed elsewhere.
"""

import re
import unicodedata
from collections.abc import Callable


def _ranges(inside: Callable[[str], bool]) -> str:
    """A regex class of all code points below U+20000 for which `inside` holds, as ranges."""
    points = [c for c in range(0x20000) if inside(chr(c))]
    starts = [c for c, before in zip(points, [-2, *points]) if c != before + 1]
    ends = [c for c, after in zip(points, [*points[1:], -2]) if c != after - 1]
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(starts, ends))


def _is_visible_mark(c: str) -> bool:
    return unicodedata.category(c)[0] == "M" and not "\ufe00" <= c <= "\ufe0f"


JOINER, NON_JOINER, SELECTORS = "\u200d", "\u200c", "\ufe00-\ufe0f\U000e0100-\U000e01ef"
WORD = rf"\w{_ranges(_is_visible_mark)}"
# technical symbols, shapes, dingbats, arrows and stars, pictographs and flags, tags of flags
EMOJI = "\u2300-\u23ff\u25a0-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff\U000e0020-\U000e007f"
BODY = rf"{WORD}{EMOJI}{SELECTORS}{JOINER}{NON_JOINER}"

TAG = re.compile(rf"(?<![{WORD}&/])#(?![\ufe0f\u20e3])([{BODY}]+)")
NAMES_SOMETHING = re.compile(rf"[^\W\d_]|[{EMOJI}]")
NO_BODY = re.compile(rf"[^{BODY}]+")
INVISIBLE = re.compile(rf"[{SELECTORS}{NON_JOINER}]+")
LOOSE_JOINER = re.compile(rf"(?<![{EMOJI}]){JOINER}|{JOINER}(?![{EMOJI}])")


def tags_in(text: str) -> list[str]:
    """The distinct hashtags of a text, without '#', in order of first appearance."""
    found = (_clean(body) for body in TAG.findall(normal(text)))
    return [tag for tag in dict.fromkeys(found) if NAMES_SOMETHING.search(tag)]


def tag_of(word: str) -> str:
    """One word or phrase as a tag: what a tag cannot hold is removed; "" if nothing is left.

    "#T-Shirt" is "tshirt", "brown bear" is "brownbear".
    """
    tag = _clean(NO_BODY.sub("", normal(word)))
    return tag if NAMES_SOMETHING.search(tag) else ""


def normal(text: str) -> str:
    """Unicode's compatibility composition of the folded text: equal for what reads the same."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", folded)


def _clean(tag: str) -> str:
    return tag if tag.isascii() else LOOSE_JOINER.sub("", INVISIBLE.sub("", tag))
