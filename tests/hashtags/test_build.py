"""The folder of a vocabulary against a plain loop; bad input; the sources that read it."""

import itertools
import json
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import command

from vissl_lite import ConfigError
from vissl_lite.hashtags import counts
from vissl_lite.hashtags import text as text_module
from vissl_lite.hashtags.build import Rules, build
from vissl_lite.hashtags.command import main
from vissl_lite.hashtags.lexicon import Lexicon
from vissl_lite.hashtags.page import page
from vissl_lite.hashtags.passes import Find
from vissl_lite.hashtags.read import Captions, Columns, Texts
from vissl_lite.hashtags.tags import tags_in
from vissl_lite.hashtags.vocabulary import TagClass
from vissl_lite.plugins import load_entries
from vissl_lite.sources.table import Table

load_entries()
WORDNET = Path("/usr/share/wordnet")
TAGS = [
    "Cat",
    "kitty",
    "cats",
    "東京",
    "déjà_vu",
    "🐻",
    "Müller",
    "sun",
    "like",
    *map("t{}".format, range(40)),
]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISSL_LITE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """1,000 captions in three files, with aliases and blocked tags."""
    folder, draw = tmp_path_factory.mktemp("captions"), random.Random(0)
    weights = [1 / rank for rank in range(1, len(TAGS) + 1)]
    for part in range(3):
        rows = []
        for i in range(300 + 50 * part):
            words = [f"#{tag}" for tag in draw.choices(TAGS, weights, k=draw.randint(0, 4))]
            rows.append({"image": f"{part}/{i}.jpg", "caption": "by x.com/#y " + " ".join(words)})
        rows[7]["caption"] = None
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{part}.parquet")
    (folder / "aliases.tsv").write_text("cat\tkitty\tcats\n")
    (folder / "block.txt").write_text("#like\n")
    return folder


def command_of(data, out, *more, files=("[0-2].parquet",), processes=1):
    files = [str(data / file) for file in files]
    words = ["--aliases", str(data / "aliases.tsv"), "--block", str(data / "block.txt"), *more]
    return main(["build", *files, "--out", str(out), *words, "--processes", str(processes)])


def plainly(data, min_count, top):
    """Classes as (name, images) and the classes of each image, by a loop over all captions."""
    key = {"kitty": "cat", "cats": "cat", "like": None}
    tables = [pq.read_table(file).to_pylist() for file in sorted(data.glob("?.parquet"))]
    rows = [
        {key.get(tag, tag) for tag in tags_in(row["caption"] or "")} - {None}
        for row in itertools.chain(*tables)
    ]
    counts = Counter(name for row in rows for name in row)
    order = sorted(counts, key=lambda name: (-counts[name], name))
    kept = [name for name in order if counts[name] >= min_count][:top]
    number = {name: i for i, name in enumerate(kept)}
    ids = [sorted(number[name] for name in row if name in number) for row in rows]
    return [(name, counts[name]) for name in kept], ids


@pytest.mark.parametrize(("min_count", "top"), [(1, None), (20, None), (1, 7)])
def test_against_a_plain_loop(data, tmp_path, min_count, top):
    words = ["--min-count", str(min_count), *(["--top", str(top)] if top else [])]
    assert command_of(data, tmp_path / "out", *words) == 0
    classes, ids = plainly(data, min_count, top)
    lines = (tmp_path / "out/classes.tsv").read_text().splitlines()[1:]
    assert [line.split("\t")[:3] for line in lines] == [
        [str(i), name, str(images)] for i, (name, images) in enumerate(classes)
    ]
    table = pq.read_table(tmp_path / "out/images.parquet")
    assert table["classes"].to_pylist() == ids
    assert table["image"].to_pylist()[::300][:2] == ["0/0.jpg", "1/0.jpg"]
    numbers = json.loads((tmp_path / "out/statistics.json").read_text())
    assert numbers["images"]["all"] == len(ids) == 1050
    assert numbers["images"]["with an empty caption"] == 3
    assert numbers["images"]["without a class"] == sum(not row for row in ids)
    histogram = Counter(map(len, ids))
    assert numbers["classes_per_image"] == [histogram[i] for i in range(max(histogram) + 1)]


def test_targets_are_counted(data, tmp_path):
    (tmp_path / "targets.txt").write_text("Deja vu, déjà vu\nT 1\nzebra\n")
    command_of(data, tmp_path / "out", "--targets", str(tmp_path / "targets.txt"))
    assert Table(str(tmp_path / "out/images.parquet"), tags="classes").classes == ["déjà_vu", "t1"]
    numbers = json.loads((tmp_path / "out/statistics.json").read_text())
    assert numbers["targets"] == {"all": 3, "with a class": 2}


def test_same_bytes_however_it_is_made(data, tmp_path, monkeypatch):
    """One process or two, files in another order, counts in memory or on disk, tags forgotten."""
    assert command_of(data, tmp_path / "one") == 0
    files = ("2.parquet", "[01].parquet", "0.parquet")
    assert command_of(data, tmp_path / "two", files=files, processes=2) == 0
    monkeypatch.setattr("vissl_lite.hashtags.counts.LIMIT", 3)
    monkeypatch.setattr("vissl_lite.hashtags.read.ROWS", 64)
    monkeypatch.setattr(counts.TagCounts.__init__, "__defaults__", (3,))
    monkeypatch.setattr(text_module, "KEEP", 20)  # many dictionaries
    assert command_of(data, tmp_path / "three") == 0
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == [
        "classes.tsv",
        "images.parquet",
        "meta.json",
        "statistics.html",
        "statistics.json",
    ]
    for other in ("two", "three"):
        for name in names:
            assert (tmp_path / other / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_table_reads_it(data, tmp_path):
    command_of(data, tmp_path / "out", "--min-count", "20")
    classes, ids = plainly(data, 20, None)
    source = Table(str(tmp_path / "out/images.parquet"), tags="classes")
    assert (source.num_classes, source.classes) == (len(classes), [name for name, _ in classes])
    assert [sample.tags for sample in source] == ids
    assert source[0].image == str(data / "0/0.jpg")  # relative to the captions
    assert Table(str(tmp_path / "out/images.parquet"))[0].image == source[0].image
    (tmp_path / "split.jsonl").write_text('{"image": "x", "classes": [1, 0]}\n')
    words = str(tmp_path / "out/classes.tsv")
    split = Table(str(tmp_path / "split.jsonl"), tags="classes", vocabulary=words)
    assert (split[0].tags, split.num_classes) == ([1, 0], len(classes))


@pytest.mark.skipif(not WORDNET.is_dir(), reason="needs Debian's wordnet-base")
def test_real_nouns(tmp_path):
    """Brown bear, ursus arctos and bruin become one class, the bears and a goat do not."""
    tags = ["brown bear", "Ursus_arctos", "#bruin", "brownbears", "bear", "goats", "goat"]
    rows = [{"image": f"{i}.jpg", "tags": [tag, "bruin"]} for i, tag in enumerate(tags)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["--tags-column", "tags", "--wordnet", str(WORDNET), "--processes", "1"]
    main(["build", str(tmp_path / "t.jsonl"), "--out", str(tmp_path / "out"), *words])
    assert (tmp_path / "out/classes.tsv").read_text().splitlines()[1:] == [
        "0\tbruin\t7\tbruin:7 brownbear:1 brownbears:1 ursus_arctos:1\tn02132136",
        "1\tgoat\t2\tgoat:1 goats:1\tn02416519",
        "2\tbear\t1\tbear:1\tn02131653",
    ]


def test_another_version_of_the_vocabulary(data, tmp_path):
    command_of(data, tmp_path / "out")
    command_of(data, tmp_path / "other", "--min-count", "20")
    images = tmp_path / "out/images.parquet"
    assert Table(str(images), tags="classes").num_classes > 20
    one, two = (
        json.loads((tmp_path / name / "meta.json").read_text())["classes"][:16]
        for name in ("out", "other")
    )
    message = rf"made with the vocabulary {one}, .*classes.tsv is {two}; take the two from the same"
    with pytest.raises(ConfigError, match=message):
        Table(str(images), tags="classes", vocabulary=str(tmp_path / "other/classes.tsv"))
    (tmp_path / "other/classes.tsv").replace(tmp_path / "out/classes.tsv")
    with pytest.raises(ConfigError, match=message):
        Table(str(images), tags="classes")
    with pytest.raises(ConfigError, match=message):
        main(["show", str(tmp_path / "out")])
    (tmp_path / "out/classes.tsv").unlink()
    with pytest.raises(
        ConfigError, match=rf"class ids of the vocabulary {one}; put its classes.tsv"
    ):
        Table(str(images), tags="classes")


def test_ids_that_the_vocabulary_lacks(data, tmp_path):
    command_of(data, tmp_path / "out", "--top", "3")
    words = str(tmp_path / "out/classes.tsv")
    for tags in ("[3]", "[-1]", '["cat"]'):
        (tmp_path / "t.jsonl").write_text(f'{{"image": "x", "classes": {tags}}}\n')
        with pytest.raises(ConfigError, match=r"row 0 of .*must be class ids below 3"):
            Table(str(tmp_path / "t.jsonl"), tags="classes", vocabulary=words)


def test_nothing_left(data, tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"no class is left of 49 tags, of which 1 are blocked.*"
        r"most frequent tag is on \d+ images and --min-count is 9,999",
    ):
        command_of(data, tmp_path / "out", "--min-count", "9999")
    (tmp_path / "t.csv").write_text("image,caption\na,no tag\n")
    with pytest.raises(ConfigError, match=r"no caption has a hashtag; check --caption-column"):
        main(["build", str(tmp_path / "t.csv"), "--out", str(tmp_path / "out")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv"]  # nothing half made


def test_what_is_odd_is_told(tmp_path, capsys):
    """Lines of JSONL that are no rows, and a quote of CSV that nothing closes."""
    (tmp_path / "t.jsonl").write_text('{"image": "a", "caption": "#a"}\n{"image": "b", "cap\n')
    lines = ["image,caption", 'b.jpg,"#b', *["c.jpg,#c"] * 10_000]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    words = [str(tmp_path / "t.*"), "--out", str(tmp_path / "out"), "--processes", "1"]
    assert main(["build", *words]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"rows skipped, malformed +1\n", shown)
    assert re.search(r"texts of CSV above 64 KB +1\n", shown)
    assert "note: texts of CSV longer than 64 KB: 1, the first of image 'b.jpg'; where a" in shown


def test_mistakes(data, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(ConfigError, match=r"--out .*full is not empty; name a new folder"):
        command_of(data, tmp_path / "full")
    with pytest.raises(
        ConfigError, match=r"--nouns keeps nouns of WordNet; name it with --wordnet"
    ):
        command_of(data, tmp_path / "out", "--nouns")
    with pytest.raises(ConfigError, match=r"no file fits '.*z\*.csv'"):
        command_of(data, tmp_path / "out", files=("z*.csv",))
    with pytest.raises(ConfigError, match=r"'.*3.parquet' does not exist"):
        command_of(data, tmp_path / "out", files=("3.parquet",))
    with pytest.raises(ConfigError, match=r"unknown 'biuld'; did you mean 'build'"):
        main(["biuld"])
    with pytest.raises(ConfigError, match=r"'0' is no whole number from 1"):
        command_of(data, tmp_path / "out", "--top", "0")


def test_command_line(data, tmp_path):
    """Through `vissl-lite`: what build prints, the tables of show, one tag, an unknown tag."""
    files = [str(data / f"{part}.parquet") for part in range(3)]
    aliases = str(data / "aliases.tsv")
    done = command("hashtags", "build", *files, "--out", "v", "--aliases", aliases, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\n  classes +47 of 49 tags\n", done.stdout)
    assert "{name: table, path: " in done.stdout
    shown = command("hashtags", "show", "v", cwd=tmp_path).stdout
    classes, ids = plainly(data, 1, None)
    assert re.search(rf"\n 0  #cat +{classes[0][1]}  cat \d+, kitty \d+, cats \d+\n", shown)
    one = command("hashtags", "show", "v", "#Kitty", cwd=tmp_path).stdout.splitlines()
    assert one[0] == f"#cat: class 0 of 47, {classes[0][1]} images"
    assert [line.split()[0] for line in one[2:5]] == ["#cat", "#kitty", "#cats"]
    first = next(i for i, row in enumerate(ids) if 0 in row)
    assert one[5].strip() == f"0/{first}.jpg"
    wrong = command("hashtags", "show", "v", "Kity", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "has the tag 'Kity'; did you mean 'kitty'?" in wrong.stderr
    empty = command("hashtags", "show", str(data), cwd=tmp_path)
    assert "has no classes.tsv" in empty.stderr


def test_page(tmp_path):
    """What comes from outside is escaped; a single tag makes a page too."""
    (tmp_path / "t.csv").write_text("image,caption\n<i>,#a\n")
    captions = Captions([tmp_path / "t.csv"], Columns("image", "caption", None))
    numbers = build(captions, Rules(), tmp_path / "out", 1)
    assert (tmp_path / "out/statistics.html").read_text().count("<svg") == 3
    foul = page(numbers, [TagClass("<b>", 1, (("<b>", 1),), "<i>")])
    assert "<b>" not in foul
    assert "#&lt;b&gt;" in foul


def test_keys_decide_overlaps():
    """Images of a class with two tags of it on one image, against sets."""
    draw = random.Random(1)
    names = list("abcdef")
    lexicon = Lexicon(dict.fromkeys("bc", "a") | {"e": "d"}, frozenset("ad"))
    texts = [" ".join(f"#{t}" for t in draw.choices(names, k=4)) for _ in range(500)]
    found = Find(lexicon)(Texts(pa.array([t.encode() for t in texts], pa.large_binary()), None))
    sets, uses = defaultdict(set), Counter()
    for row, text in enumerate(texts):
        for tag in tags_in(text):
            sets[lexicon.key(tag)].add(row)
            uses[lexicon.key(tag)] += 1
    assert found.overlaps == +Counter({key: uses[key] - len(sets[key]) for key in sets})
    assert set(found.new) == set(names)
