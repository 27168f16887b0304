"""Which hashtags a text has: the stated rules, and the same rules written a second way."""

import random
import unicodedata
from itertools import takewhile

import pytest

from vissl_lite.hashtags.tags import tag_of, tags_in

CASES = {
    "#Müller at #sea, #déjà_vu!": ["müller", "sea", "déjà_vu"],
    "#東京、 #한국 #ไทย #हिन्दी": ["東京", "한국", "ไทย", "हिन्दी"],
    "＃Ｓｕｎ ﹟sea #Straße #İzmir": ["sun", "sea", "strasse", "i̇zmir"],
    "#mu\u0308ller #müller": ["müller"],  # decomposed and composed
    "x.com/#a x.com/page#b &#39; a#c é#d e\u0301#e 1#f _#g": [],
    "##a (#b) [#c] .#d ❤️#e 👩#f": ["a", "b", "c", "d", "e", "f"],
    "#sun#sea #t-shirt #don't #c++": ["sun", "t", "don", "c"],
    "#1 #2024 #_ #2_0 # #! #٣": [],
    "#4x4 #2pac": ["4x4", "2pac"],
    "#️⃣ #️⃣a": [],  # keycaps
    "#❤️ #❤ #i❤️ny #🐻 #🇯🇵": ["❤", "i❤ny", "🐻", "🇯🇵"],
    "#👩\u200d🚀 #❤️\u200d🔥 #a\u200db #🐻\u200d": ["👩\u200d🚀", "❤\u200d🔥", "ab", "🐻"],
    "#می\u200cخواهم": ["میخواهم"],
    "#a #A #a": ["a"],
    "": [],
}


@pytest.mark.parametrize(("text", "tags"), CASES.items())
def test_rules(text, tags):
    assert tags_in(text) == tags


def test_one_word_as_a_tag():
    words = ["#T-Shirt", " brown bear ", "Ursus arctos", "＃Ｓｕｎ", "❤️", "2024", "!", ""]
    wanted = ["tshirt", "brownbear", "ursusarctos", "sun", "❤", "", "", ""]
    assert [tag_of(word) for word in words] == wanted


def is_emoji(c):
    blocks = ((0x2300, 0x23FF), (0x25A0, 0x27BF), (0x2B00, 0x2BFF), (0x1F000, 0x1FAFF))
    return any(low <= ord(c) <= high for low, high in (*blocks, (0xE0020, 0xE007F)))


def is_word(c):
    return unicodedata.category(c)[0] in "LMN" or c == "_"


def slowly(text):
    """The rules, character by character, without a regular expression."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    found = []
    for i in (i for i, c in enumerate(text) if c == "#"):
        before, after = text[i - 1 : i], text[i + 1 :]
        if before and before != "\ufe0f" and (is_word(before) or before in "&/"):
            continue
        if after[:1] in ("\ufe0f", "\u20e3"):
            continue
        body = takewhile(lambda c: is_word(c) or is_emoji(c) or c in "\u200c\u200d", after)
        body = [c for c in body if c not in "\ufe0f\u200c"]
        pairs = zip(["", *body], body, [*body[1:], ""])
        tag = "".join(
            c for a, c, b in pairs if c != "\u200d" or (a and b and is_emoji(a) and is_emoji(b))
        )
        if any(unicodedata.category(c)[0] == "L" or is_emoji(c) for c in tag):
            found.append(tag)
    return list(dict.fromkeys(found))


def test_against_the_rules_written_a_second_way():
    alphabet = "##＃﹟aB1_ &/é\u0301\u200d\u200c\ufe0f❤🐻東。½ßｶﾞ²\u20e3.-\n한ı"
    draw = random.Random(0)
    texts = ["".join(draw.choices(alphabet, k=draw.randint(1, 12))) for _ in range(20_000)]
    assert sum(map(len, map(slowly, texts))) > 3_000
    assert [text for text in texts if tags_in(text) != slowly(text)] == []
