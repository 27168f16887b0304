"""The example's captions give back, through a vocabulary, the tags that its images were made of."""

from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vissl_lite import ConfigError
from vissl_lite.hashtags.build import Rules, build
from vissl_lite.hashtags.command import main
from vissl_lite.hashtags.example import PAIRS, SHARES, caption, spellings, write_example
from vissl_lite.hashtags.folder import read_classes
from vissl_lite.hashtags.read import Captions, Columns
from vissl_lite.hashtags.tags import tag_of, tags_in
from vissl_lite.sources.digits_tags import DigitsTags
from vissl_lite.sources.table import Table


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example") / "example"
    write_example(folder, images=200, test=60, seed=3)
    rules = Rules(aliases=str(folder / "aliases.tsv"), block=str(folder / "block.txt"))
    captions = Captions([folder / "captions.parquet"], Columns("image", "caption", None))
    build(captions, rules, folder / "vocab", processes=1)
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISSL_LITE_CACHE", str(tmp_path / "cache"))


def pairs_of(table, names):
    """The tags of all images, as pairs of digits."""
    name_of = {"".join(spellings(pair)[0]): pair for pair in range(len(PAIRS))}
    known = [[name_of.get(names[v]) for v in table[i].tags] for i in range(len(table))]
    return [sorted(pair for pair in row if pair is not None) for row in known]


def test_spellings_belong_to_one_pair_each():
    owner = [(tag_of("".join(w)), pair) for pair in range(len(PAIRS)) for w in spellings(pair)]
    assert len({word for word, _ in owner}) == len(set(owner))
    assert len(spellings(0)) == len(SHARES)
    assert sum(SHARES) == pytest.approx(1)


def test_the_vocabulary_gives_back_the_tags_of_the_images(example):
    table = Table(str(example / "vocab" / "images.parquet"), tags="classes")
    source, empty = DigitsTags(200, seed=3), 0
    captions = pq.read_table(example / "captions.parquet")["caption"].to_pylist()
    for i, found in enumerate(pairs_of(table, table.classes)):
        wanted = [] if not captions[i] else source[i].tags
        empty += not captions[i]
        assert found == wanted
        assert np.array_equal(np.asarray(Image.open(table[i].image)), source[i].image)
    assert 0 < empty < 10
    named = {each.name for each in read_classes(example / "vocab")}
    assert not named & {"love", "instagood", "tbt", "nofilter", "latergram"}


def test_captions_are_like_those_of_people():
    rng = np.random.default_rng(0)
    texts = [caption([7], rng) for _ in range(2000)]
    found = Counter(tag for text in texts for tag in tags_in(text))
    forms = [found[tag_of("".join(words))] / 2000 for words in spellings(7)]
    assert forms == pytest.approx([0.99 * share for share in SHARES], abs=0.04)
    assert 0.09 < found["love"] / 2000 < 0.15
    assert sum(tag.startswith("day") for tag in found) > 150
    assert any("#ZeroSeven" in text for text in texts)
    assert any("#ZEROSEVEN" in text for text in texts)
    assert {"1", "all", "b", "39"}.isdisjoint(found)


def test_the_same_files_again(example, tmp_path):
    again = tmp_path / "again"
    words = ["example", str(again), "--images", "200", "--test", "60", "--seed", "3"]
    assert main(words) == 0
    files = [file.relative_to(again) for file in again.rglob("*") if file.is_file()]
    assert len(files) == 260 + 4
    for file in files:
        assert (again / file).read_bytes() == (example / file).read_bytes()
    with pytest.raises(ConfigError, match="is not empty"):
        main(words)


# ------------------------------------------------------------------ build --vocabulary


def covered(example, captions, out):
    words = [str(example / captions), "--vocabulary", str(example / "vocab"), "--out", str(out)]
    assert main(["build", *words, "--processes", "2"]) == 0
    return out / "images.parquet"


def test_the_same_captions_are_named_the_same(example, tmp_path):
    again = covered(example, "captions.parquet", tmp_path / "again")
    assert pq.read_table(again).equals(pq.read_table(example / "vocab" / "images.parquet"))


def test_held_out_captions_get_the_classes_of_the_vocabulary(example, tmp_path):
    table = Table(str(covered(example, "test.parquet", tmp_path / "test")), tags="classes")
    source = DigitsTags(60, split="test", seed=3)
    captions = pq.read_table(example / "test.parquet")["caption"].to_pylist()
    classes = read_classes(example / "vocab")
    members = {tag for each in classes for tag in (each.name, *dict(each.members))}
    for i, found in enumerate(pairs_of(table, table.classes)):
        forms = [("".join(w), pair) for pair in source[i].tags for w in spellings(pair)]
        spelt = {tag_of(word): pair for word, pair in forms}
        known = {spelt[tag] for tag in tags_in(captions[i]) if tag in spelt and tag in members}
        assert found == sorted(known)
