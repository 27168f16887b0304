"""Captions from every kind of file give the same; what is broken is counted or named."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from vissl_lite import ConfigError
from vissl_lite.hashtags import formats
from vissl_lite.hashtags import read as read_module
from vissl_lite.hashtags.read import Captions, Columns

ROWS = [
    {"id": 1, "image": "a.jpg", "caption": 'one "#sun", two\nlines', "tags": ["sun", "sea"]},
    {"id": 2, "image": "b.jpg", "caption": "", "tags": []},
    {"id": 3, "image": "c.jpg", "caption": "東京 #東京", "tags": ["東京"]},
]
BOTH = Columns("image", "caption", "tags")


def write(path, rows=ROWS):
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=2)
    elif path.suffix == ".feather":
        feather.write_feather(table, path)
    elif path.suffix == ".arrow":
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    elif path.suffix == ".jsonl":
        path.write_text("\n" + "\n\n".join(map(json.dumps, rows)))
    else:
        tab = "\t" if path.suffix == ".tsv" else ","
        lines = [tab.join(rows[0])]
        for row in rows:
            caption = '"' + row["caption"].replace('"', '""') + '"'
            cells = [str(row["id"]), row["image"], caption, '"' + "; ".join(row["tags"]) + '"']
            lines.append(tab.join(cells))
        path.write_text("\n".join(lines))
    return path


def read(*files, columns=BOTH, root=None):
    captions = Captions(list(files), columns, root)
    images, texts, tags = [], [], []
    for names, found in captions:
        images += names.to_pylist()
        texts += [] if found.captions is None else found.captions.to_pylist()
        tags += [] if found.tags is None else found.tags.to_pylist()
    return captions, images, [None if t is None else t.decode() for t in texts], tags


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "arrow", "feather"])
def test_every_format(tmp_path, suffix):
    captions, images, texts, tags = read(write(tmp_path / f"t.{suffix}"))
    assert (images, texts) == ([r["image"] for r in ROWS], [r["caption"] for r in ROWS])
    tags = [[tag.decode() for tag in row if tag] for row in tags]
    assert tags == [row["tags"] for row in ROWS]
    assert +captions.skipped == {}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_only_the_columns_that_are_named(tmp_path, suffix):
    file = write(tmp_path / f"t.{suffix}")
    _, images, texts, tags = read(file, columns=Columns("id", None, "tags"))
    assert (images, texts, len(tags)) == (["1", "2", "3"], [], 3)


def test_categories_are_text(tmp_path):
    table = pa.table({"image": ["a", "b"], "caption": pa.array(["#x"] * 2).dictionary_encode()})
    pq.write_table(table, tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet", columns=Columns("image", "caption", None))[2] == ["#x"] * 2


@pytest.mark.parametrize("name", ["captions", "tags"])
def test_a_quote_that_nothing_closes(tmp_path, name):
    """What follows became one text, which is counted and whose image is told."""
    lines = ["image,text", "a.jpg,#a", 'b.jpg,"#b', *["c.jpg,#c"] * 10_000]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    columns = ("text", None) if name == "captions" else (None, "text")
    captions, images, *_ = read(tmp_path / "t.csv", columns=Columns("image", *columns))
    assert images == ["a.jpg", "b.jpg"]
    assert (captions.long, captions.first_long) == (1, "b.jpg")


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.dictionary(pa.int32(), pa.string())),
        pa.list_(pa.string(), 2),
        pa.list_(pa.dictionary(pa.int32(), pa.string()), 2),
    ],
)
def test_lists_of_every_kind(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(read_module, "ROWS", 2)
    tags = pa.array([["a", "b"], None, ["b", "東京"]], kind)
    table = pa.table({"image": ["1", "2", "3"], "tags": tags})
    with pa.ipc.new_file(str(tmp_path / "t.arrow"), table.schema) as writer:
        writer.write_table(table)
    found = read(tmp_path / "t.arrow", columns=Columns("image", None, "tags"))[-1]
    assert found == [[b"a", b"b"], None, [b"b", "東京".encode()]]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "arrow"])
def test_how_much_is_read(tmp_path, suffix):
    """Never more than there is, in ascending order, nearly all in the end."""
    files = [write(tmp_path / f"{part}.{suffix}", ROWS * 50) for part in "ab"]
    captions, sizes = Captions(files, BOTH), [file.stat().st_size for file in files]
    seen = [captions.read for _ in captions]
    assert seen == sorted(seen)
    assert sizes[0] < seen[-1] <= sum(sizes)
    if suffix != "arrow":  # there, about
        assert seen[-1] == sum(sizes)


def test_images_under_the_common_root(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    rows = [{**ROWS[0], "image": image} for image in ("x.jpg", "/abs/y.jpg", "s3://z/w.jpg")]
    files = [write(tmp_path / name / "t.parquet", rows) for name in ("a", "b")]
    captions, images, *_ = read(*files)
    assert captions.common_root() == tmp_path
    assert images[::3] == ["a/x.jpg", "b/x.jpg"]
    assert images[1:3] == ["/abs/y.jpg", "s3://z/w.jpg"]
    captions, images, *_ = read(*files, root=tmp_path / "c")
    assert (captions.common_root(), images[0]) == (tmp_path / "c", "x.jpg")


def test_rows_that_are_skipped(tmp_path):
    (tmp_path / "t.csv").write_bytes(
        b"image,caption\na.jpg,#a\n,#b\nc.jpg,#c,more\n\xff.jpg,#d\ne.jpg,caf\xe9\n"
    )
    captions = Captions([tmp_path / "t.csv"], Columns("image", "caption", None))
    for _ in range(2):  # a second pass counts anew
        ((images, texts),) = captions
        assert images.to_pylist() == ["a.jpg", "e.jpg"]
        assert texts.captions.to_pylist() == [b"#a", b"caf\xe9"]
        assert captions.skipped == {"without image": 2, "malformed": 1}
    pq.write_table(
        pa.table({"image": ["a", None, ""], "caption": [None, "", ""]}), tmp_path / "p.parquet"
    )
    captions, images, texts, _ = read(tmp_path / "p.parquet", columns=captions.columns)
    assert (images, texts, captions.skipped) == (["a"], [None], {"without image": 2})


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        ("parquet", pa.string()),
        ("feather", pa.large_string()),
        ("feather", pa.string_view()),
        ("feather", pa.dictionary(pa.int32(), pa.string())),
    ],
)
def test_batches_are_small(tmp_path, monkeypatch, suffix, kind):
    """At most BYTES, or a single row that is larger, and nothing else is sent with them."""
    monkeypatch.setattr(formats, "BYTES", 2_000)
    monkeypatch.setattr(read_module, "BYTES", 2_000)
    rows = [{"image": f"{i}", "caption": f"{i} #a" * (1 + 100 * (i % 7 == 0))} for i in range(200)]
    table = pa.Table.from_pylist(rows)
    table = table.set_column(1, "caption", table["caption"].cast(kind))
    if suffix == "feather":
        feather.write_feather(table, tmp_path / "t.feather")
    else:
        pq.write_table(table, tmp_path / "t.parquet")
    found = list(Captions([tmp_path / f"t.{suffix}"], Columns("image", "caption", None)))
    captions = [text.decode() for _, texts in found for text in texts.captions.to_pylist()]
    assert captions == [row["caption"] for row in rows]
    assert 10 < len(found) < 200
    for images, texts in found:
        assert len(images) == 1 or texts.captions.get_total_buffer_size() <= 2_500


MISTAKES = {
    "t.txt": (b"", r"none of .csv, .tsv, .jsonl"),
    "t.csv": (
        b"image,captoin,tags\n",
        r"no column 'caption'; did you mean 'captoin'\? .*there are: ",
    ),
    "t.parquet": (b"PAR1 and no more", r"t.parquet cannot be read"),
    "t.arrow": (b"\x89PNG", r"t.arrow cannot be read"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(tmp_path, name):
    content, message = MISTAKES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read(tmp_path / name)


@pytest.mark.parametrize("column", ["image", "caption", "tags"])
def test_columns_of_another_type(tmp_path, column):
    table = pa.table({"image": ["a"], "caption": ["b"], "tags": [["c"]], "other": [[1.5]]})
    pq.write_table(table, tmp_path / "t.parquet")
    names = {"image": "image", "caption": "caption", "tags": "tags", column: "other"}
    wanted = r"'other' of .*t.parquet holds list<.*needs text" + (
        " or lists" if column == "tags" else "; name a column of lists with --tags-column"
    )
    with pytest.raises(ConfigError, match=wanted):
        read(tmp_path / "t.parquet", columns=Columns(**names))
