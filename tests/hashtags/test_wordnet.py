"""WordNet's nouns: a folder of six synsets, and Debian's files where they are installed."""

from pathlib import Path

import pytest
from timm.data import ImageNetInfo

from vissl_lite import ConfigError
from vissl_lite.hashtags.wordnet import read_wordnet, squeezed

DEBIAN = Path("/usr/share/wordnet")
needs_debian = pytest.mark.skipif(
    not (DEBIAN / "index.noun").is_file(), reason="needs Debian's wordnet-base"
)
LICENCE = "  1 This is the licence.\n"
SYNSETS = {10: "bear", 20: "brown_bear bruin", 30: "bruin", 40: "glass", 50: "glasses", 60: "mouse"}
SENSES = {"bear": [10], "brown_bear": [20], "bruin": [30, 20], "glass": [40], "glasses": [50]}


@pytest.fixture
def folder(tmp_path):
    data = [f"{n:08d} 05 n {len(w.split()):02x} {w} 0 | gloss" for n, w in SYNSETS.items()]
    senses = {**SENSES, "mouse": [60], "father-in-law": [10], "fatherinlaw": [40]}
    index = [
        f"{lemma} n {len(found)} 2 @ ~ {len(found)} 0 {' '.join(f'{n:08d}' for n in found)}  "
        for lemma, found in senses.items()
    ]
    (tmp_path / "data.noun").write_text(LICENCE + "\n".join(data))
    (tmp_path / "index.noun").write_text(LICENCE + "\n".join(index))
    (tmp_path / "noun.exc").write_text("mice mouse\n")
    return tmp_path


def test_lookup(folder):
    wordnet = read_wordnet(str(folder))
    wanted = {
        "brownbear": (20,),
        "brown_bear": (20,),
        "brownbears": (20,),
        "bruin": (20, 30),  # without a frequency, the sense that has a synonym goes first
        "glasses": (50,),  # a noun itself, before the plural of another
        "mice": (60,),
        "fatherinlaw": (40,),  # one word before a collocation of the same letters
        "bearss": (),
        "zebra": (),
    }
    assert {tag: wordnet.senses(tag) for tag in wanted} == wanted


def test_frequent_senses_keep_their_order(folder):
    text = (folder / "index.noun").read_text().replace("bruin n 2 2 @ ~ 2 0", "bruin n 2 2 @ ~ 2 1")
    (folder / "index.noun").write_text(text)
    assert read_wordnet(str(folder)).senses("bruin") == (30, 20)


def test_mistakes(folder):
    with pytest.raises(
        ConfigError, match=r"--wordnet .* cannot be read \(FileNotFoundError.*Debian"
    ):
        read_wordnet(str(folder / "no"))
    (folder / "index.noun").write_text("bear n\n")
    with pytest.raises(ConfigError, match=r"cannot be read \(IndexError"):
        read_wordnet(str(folder))


@pytest.fixture(scope="module")
def debian():
    return read_wordnet(str(DEBIAN))


@needs_debian
def test_real_nouns(debian):
    """WordNet 3.0 has 117,798 noun lemmas in 82,115 synsets (wnstats(7WN))."""
    lines = (DEBIAN / "index.noun").read_text().splitlines()
    lemmas = [line.split()[0] for line in lines if not line.startswith("  ")]
    assert len(lemmas) == 117_798
    assert len({n for senses in debian.lemmas.values() for n in senses}) <= 82_115
    assert {squeezed(lemma) for lemma in lemmas} == set(debian.lemmas)
    for tag in ("brownbear", "brown_bear", "ursusarctos", "bruin", "brownbears", "bruins"):
        assert debian.senses(tag)[0] == 2132136
    plurals = {"mice": "mouse", "churches": "church", "women": "woman", "cities": "city"}
    for plural, singular in plurals.items():
        assert debian.senses(plural) == debian.senses(singular) != ()


@needs_debian
def test_offsets_are_those_of_imagenet(debian):
    """timm's lemmas of the 21,841 synsets of ImageNet, of which WordNet 3.0 has nearly all."""
    info = ImageNetInfo("imagenet-22k")
    found = total = 0
    for synset in info.label_names():
        names = info.label_name_to_description(synset, detailed=False).split(", ")
        offset, tags = int(synset[1:]), [squeezed(name.lower()) for name in names]
        found += any(offset in debian.senses(tag) for tag in tags)
        total += 1
    assert total == 21_841
    assert found > 0.99 * total
