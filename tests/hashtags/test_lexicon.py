"""Which class a tag belongs to: aliases before WordNet, blocked tags, targets."""

import pytest

from vissl_lite import ConfigError
from vissl_lite.hashtags.lexicon import Lexicon, read_aliases, read_blocked, read_targets
from vissl_lite.hashtags.wordnet import WordNet

WORDNET = WordNet({"brownbear": (20,), "bruin": (20, 30), "bear": (10,), "crane": (40, 50)}, {})


def written(tmp_path, text):
    path = tmp_path / "file.txt"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_keys():
    lexicon = Lexicon({"teddy": "bear", "grizz": "bruin"}, frozenset({"bear", "bruin"}))
    assert [lexicon.key(tag) for tag in ("teddy", "bear", "sun")] == ["bear", "bear", "sun"]
    with_nouns = Lexicon(lexicon.aliases, lexicon.canonical, wordnet=WORDNET)
    tags = ("teddy", "bears", "bruin", "brown_bear", "grizz", "sun")
    keys = ["wn:00000010", "wn:00000010", *["wn:00000020"] * 3, "sun"]
    assert [with_nouns.key(tag) for tag in tags] == keys
    only = Lexicon(wordnet=WORDNET, nouns=True)
    assert [only.key(tag) for tag in ("crane", "sun")] == ["wn:00000040", None]


def test_blocked():
    lexicon = Lexicon({"teddy": "bear"}, frozenset({"bear"}), blocked=frozenset({"bear"}))
    assert lexicon.key("bear") is lexicon.key("teddy") is None


def test_a_name_alone_is_not_looked_up(tmp_path):
    aliases, canonical, apart = read_aliases(written(tmp_path, "Bruin\n#bear\tTeddy\tthe bear\n"))
    assert (aliases, canonical) == ({"teddy": "bear", "thebear": "bear"}, {"bruin", "bear"})
    lexicon = Lexicon(aliases, canonical, apart, wordnet=WORDNET)
    assert [lexicon.key(tag) for tag in ("bruin", "teddy")] == ["bruin", "wn:00000010"]


def test_targets(tmp_path):
    text = "n00000050 crane\nbrown bear, bruin\nno noun\n"
    lines = read_targets(written(tmp_path, text), WORDNET)
    assert lines == [{"wn:00000050"}, {"wn:00000020"}, {"nonoun"}]
    lexicon = Lexicon(wordnet=WORDNET, targets=frozenset().union(*lines))
    tags = ("crane", "bruin", "bear", "no_noun", "sun")
    # the crane of the targets is the machine, its second sense
    assert [lexicon.key(tag) for tag in tags] == [
        "wn:00000050",
        "wn:00000020",
        None,
        "nonoun",
        None,
    ]


def test_targets_without_wordnet(tmp_path):
    path = written(tmp_path, "Brown bear, Ursus arctos\nn02132466 Syrian bear\n")
    assert read_targets(path, None) == [{"brownbear", "ursusarctos"}, {"syrianbear"}]
    with pytest.raises(ConfigError, match=r"line 2 names no class, it is 'n02132136'; ids alone"):
        read_targets(written(tmp_path, "bear\nn02132136\n"), None)


def test_files(tmp_path):
    assert read_blocked(written(tmp_path, "#Love\n\nlike4like\n")) == {"love", "like4like"}
    with pytest.raises(ConfigError, match=r"'b' stands in lines 1 and 2, for 'a' and 'c'"):
        read_aliases(written(tmp_path, "a\tb\nc\tb\n"))
    with pytest.raises(ConfigError, match=r"'b' stands in lines 1 and 2, for 'a' and 'b'"):
        read_aliases(written(tmp_path, "a\tb\nb\tc\n"))
    with pytest.raises(ConfigError, match=r"--block .* cannot be read: No such file"):
        read_blocked(str(tmp_path / "no"))
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(ConfigError, match=r"cannot be read: it is not UTF-8"):
        read_blocked(str(tmp_path / "latin"))
