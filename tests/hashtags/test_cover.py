"""The classes of a vocabulary for other captions, against a plain loop; other versions."""

import json
from collections import Counter

import pytest

from vissl_lite import ConfigError
from vissl_lite.hashtags.command import main
from vissl_lite.hashtags.folder import read_classes
from vissl_lite.sources.table import Table

OLD = ["#cat #Kitty #sea", "#sea #sun", "#bear", "#sea"]
NEW = ["#kitty #CAT #moon", "#feline #sea", "#moon #new", "no tag", "#cats"]
CLASS = {"cat": 2, "kitty": 2, "feline": 2, "sea": 0}  # #feline is a name, on no old image


def written(file, captions):
    rows = [{"image": f"{i}.jpg", "caption": text} for i, text in enumerate(captions)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


@pytest.fixture
def vocabulary(tmp_path, monkeypatch):
    monkeypatch.setenv("VISSL_LITE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "aliases.tsv").write_text("feline\tcat\tkitty\n")
    words = ["--aliases", str(tmp_path / "aliases.tsv"), "--processes", "1"]
    main(["build", written(tmp_path / "old.jsonl", OLD), "--out", str(tmp_path / "v"), *words])
    return tmp_path / "v"


def cover(vocabulary, *more, captions=NEW):
    file, out = written(vocabulary.parent / "new.jsonl", captions), vocabulary.parent / "out"
    words = ["--vocabulary", str(vocabulary), "--out", str(out), "--processes", "1"]
    assert main(["build", file, *words, *more]) == 0
    return out


def test_against_a_plain_loop(vocabulary):
    out = cover(vocabulary)
    assert (out / "classes.tsv").read_bytes() == (vocabulary / "classes.tsv").read_bytes()
    tags = [{word[1:].lower() for word in text.split() if word[0] == "#"} for text in NEW]
    ids = [sorted({CLASS[tag] for tag in each if tag in CLASS}) for each in tags]
    source = Table(str(out / "images.parquet"), tags="classes")
    assert [sample.tags for sample in source] == ids == [[2], [0, 2], [], [], []]
    assert source.classes == ["sea", "bear", "feline", "sun"]
    numbers = json.loads((out / "statistics.json").read_text())
    uses = Counter(tag for each in tags for tag in each)
    missed = {tag: count for tag, count in uses.items() if tag not in CLASS}
    assert numbers["not in the vocabulary"] == [["moon", 2], ["cats", 1], ["new", 1]]
    assert (numbers["tags"]["left out"], numbers["tags"]["uses left out"]) == (3, 4)
    assert dict(numbers["not in the vocabulary"]) == missed
    assert numbers["coverage"]["uses"] == 1 - sum(missed.values()) / uses.total()
    assert numbers["coverage"]["tagged images"] == 2 / 4
    assert (numbers["classes"]["kept"], numbers["classes"]["with an image"]) == (4, 2)


def test_what_is_shown(vocabulary, capsys):
    out = cover(vocabulary)
    shown = capsys.readouterr().out
    assert "  not in the vocabulary" in shown
    assert "#moon 2, #cats 1, #new 1" in shown
    assert "#moon 2, #cats 1" in (out / "statistics.html").read_text()
    main(["show", str(out), "sea"])
    assert "#sea: class 0 of 4, 3 images" in capsys.readouterr().out  # of the old captions


def test_overlaps_are_those_of_the_new_images(vocabulary):
    html = (cover(vocabulary) / "statistics.html").read_text()
    assert "#feline<td class='n'>2<td>cat 1, feline 1, kitty 1" in html


def test_mistakes(vocabulary, tmp_path):
    with pytest.raises(ConfigError, match=r"as they are; leave out --min-count, --top"):
        cover(vocabulary, "--top", "3", "--min-count", "2")
    with pytest.raises(ConfigError, match=r"none of 1 tags is in the vocabulary .*v; check"):
        cover(vocabulary, captions=["#x"])
    with pytest.raises(ConfigError, match=r"no caption has a hashtag"):
        cover(vocabulary, captions=["x"])
    with pytest.raises(ConfigError, match=r"has no classes.tsv"):
        cover(tmp_path)
    assert not (tmp_path / "out").exists()


def test_another_version(vocabulary):
    meta, classes = vocabulary / "meta.json", vocabulary / "classes.tsv"
    kept = meta.read_text()
    meta.write_text(kept.replace('"version": 1', '"version": 2'))
    with pytest.raises(ConfigError, match=r"of format version 2, this is 1; build it again"):
        cover(vocabulary)
    meta.write_text("[]")
    with pytest.raises(ConfigError, match=r"meta.json cannot be read \(TypeError"):
        cover(vocabulary)
    meta.write_text(kept)
    classes.write_text(classes.read_text().replace("sun", "sum"))
    with pytest.raises(ConfigError, match=r"meta.json beside it is of [0-9a-f]{16}; take the two"):
        cover(vocabulary)
    assert [each.name for each in read_classes(vocabulary)][-1] == "sum"
