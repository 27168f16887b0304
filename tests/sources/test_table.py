"""table: CSV, JSONL and Parquet give the same samples; labels, hashtags, vocabularies, mistakes."""

import csv
import io
import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyarrow import feather
from sklearn.datasets import load_digits

from vissl_lite import ConfigError
from vissl_lite.sources.table import Table

DIGITS = load_digits()

N = 40
TAGS = [["#Sea", "sun"], [], ["sun", "sun", "beach"], ["Beach "]]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISSL_LITE_CACHE", str(tmp_path / "cache"))


def encoded(i):
    stream = io.BytesIO()
    Image.fromarray((DIGITS.images[i] * 15).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def rows(tmp_path):
    """Forty digits as PNG files, with number, name and tags each."""
    (tmp_path / "png").mkdir()
    found = []
    for i in range(N):
        (tmp_path / "png" / f"{i}.png").write_bytes(encoded(i))
        digit = int(DIGITS.target[i])
        name = "even" if digit % 2 == 0 else "odd"
        found.append({"image": f"png/{i}.png", "digit": digit, "name": name, "tags": TAGS[i % 4]})
    return found


def write(path, rows):
    """Writes rows in the format of the suffix; CSV joins the tags with ';'."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    else:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows({**row, "tags": ";".join(row["tags"])} for row in rows)
    return str(path)


SUFFIXES = pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])


@SUFFIXES
def test_numbers_are_class_ids(rows, tmp_path, suffix):
    source = Table(write(tmp_path / f"t.{suffix}", rows), label="digit")
    assert [s.label for s in source] == DIGITS.target[:N].tolist()
    assert (source.num_classes, source.classes) == (10, None)
    assert [s.image for s in source] == [str(tmp_path / row["image"]) for row in rows]


@SUFFIXES
def test_names_are_sorted(rows, tmp_path, suffix):
    source = Table(write(tmp_path / f"t.{suffix}", rows), label="name")
    assert source.classes == ["even", "odd"]
    assert source.all_labels().tolist() == (DIGITS.target[:N] % 2).tolist()


@SUFFIXES
def test_tags(rows, tmp_path, suffix):
    source = Table(write(tmp_path / f"t.{suffix}", rows), tags="tags", separator=";")
    assert source.classes == ["beach", "sea", "sun"]
    assert [s.tags for s in source] == [[1, 2], [], [2, 2, 0], [0]] * (N // 4)
    values, offsets = source.all_tags()
    assert values[offsets[2] : offsets[3]].tolist() == [2, 2, 0]
    assert source[0].label is None


def test_tags_are_numbers(rows, tmp_path):
    source = Table(write(tmp_path / "t.parquet", rows), tags="digit")
    assert [s.tags for s in source] == [[digit] for digit in DIGITS.target[:N]]
    assert (source.num_classes, source.classes) == (10, None)


def test_tags_in_a_string_with_white_space(tmp_path):
    path = write(
        tmp_path / "t.jsonl", [{"image": "a", "t": " #Cat\t#dog  # "}, {"image": "b", "t": None}]
    )
    source = Table(path, tags="t")
    assert (source.classes, source[0].tags, source[1].tags) == (["cat", "dog"], [0, 1], [])


@pytest.mark.parametrize("struct", [False, True])
def test_bytes_in_parquet(rows, tmp_path, struct):
    images = [encoded(i) for i in range(N)]
    images = [{"bytes": image, "path": None} for image in images] if struct else images
    images[3] = None
    pq.write_table(
        pa.table({"image": images, "label": range(N)}), tmp_path / "t.parquet", row_group_size=9
    )
    source = pickle.loads(pickle.dumps(Table(str(tmp_path / "t.parquet"), label="label")))
    for i in (0, 8, 9, N - 1):
        assert np.array_equal(Image.open(io.BytesIO(source[i].image)), DIGITS.images[i] * 15)
        assert source[i].label == i
    assert source[3].image == b""  # decoding counts it as broken
    assert source[8].name == f"{tmp_path}/t.parquet:8"


def test_several_tables_in_order_of_their_names(rows, tmp_path):
    for number, part in enumerate((rows[25:], rows[:25])):
        write(tmp_path / f"part-{1 - number}.parquet", part)
    source = Table(str(tmp_path / "part-*.parquet"), label="digit")
    assert [s.label for s in source] == DIGITS.target[:N].tolist()


def test_root(rows, tmp_path):
    (tmp_path / "tables").mkdir()
    source = Table(write(tmp_path / "tables" / "t.csv", rows), root=str(tmp_path))
    assert source[1].image == str(tmp_path / "png" / "1.png")
    assert source.num_classes is source[1].label is source[1].tags is None


def test_vocabulary(rows, tmp_path):
    (tmp_path / "words.txt").write_text("sun\nmoon\nsea\n")
    path = write(tmp_path / "t.jsonl", rows)
    source = Table(path, tags="tags", vocabulary=str(tmp_path / "words.txt"))
    assert source.classes == ["sun", "moon", "sea"]
    assert [source[i].tags for i in range(4)] == [[2, 0], [], [0, 0], []]
    with pytest.raises(
        ConfigError, match=r"row 0 of .*jsonl has label 'even', which the vocabulary lacks"
    ):
        Table(path, label="name", vocabulary=str(tmp_path / "words.txt"))
    (tmp_path / "words.txt").write_text("sun\nsea\nsun\n")
    with pytest.raises(ConfigError, match=r"'sun' stands twice"):
        Table(path, tags="tags", vocabulary=str(tmp_path / "words.txt"))


def test_changed_table_is_read_again(rows, tmp_path):
    assert len(Table(write(tmp_path / "t.csv", rows))) == N
    assert len(Table(write(tmp_path / "t.csv", rows[:5]))) == 5


def test_out_of_range(rows, tmp_path):
    source = Table(write(tmp_path / "t.csv", rows))
    for index in (-1, N):
        with pytest.raises(IndexError):
            source[index]


@SUFFIXES
def test_missing_column(rows, tmp_path, suffix):
    path = write(tmp_path / f"t.{suffix}", rows)
    with pytest.raises(
        ConfigError, match=r"no column 'tag'; did you mean 'tags'\? columns: image, digit"
    ):
        Table(path, tags="tag")


def test_mistakes(rows, tmp_path):
    path = write(tmp_path / "t.csv", rows)
    with pytest.raises(ConfigError, match=r"label and tags; name one"):
        Table(path, label="name", tags="tags")
    with pytest.raises(ConfigError, match=r"none of .csv, .tsv, .jsonl, .ndjson, .parquet"):
        Table(str(tmp_path / "png" / "0.png"))
    with pytest.raises(ConfigError, match=r"no file fits"):
        Table(str(tmp_path / "part-*.csv"))
    (tmp_path / "short.csv").write_text("image,label\na.png,1\nb.png\n")
    with pytest.raises(
        ConfigError, match=r"short.csv, line 3 cannot be read .* every line needs 2 values"
    ):
        Table(str(tmp_path / "short.csv"), label="label")
    (tmp_path / "bare.csv").write_text("image,label\na.png,\n")
    with pytest.raises(ConfigError, match=r"row 0 of .*bare.csv has no label"):
        Table(str(tmp_path / "bare.csv"), label="label")
    (tmp_path / "header.csv").write_text("image,label\n")
    with pytest.raises(ConfigError, match=r"no rows in"):
        Table(str(tmp_path / "header.csv"), label="label")
    (tmp_path / "bad.jsonl").write_text('{"image": "a"}\n{"image": \n')
    with pytest.raises(ConfigError, match=r"bad.jsonl, line 2 is no JSON"):
        Table(str(tmp_path / "bad.jsonl"))
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ConfigError, match=r"cut.parquet cannot be read as Parquet"):
        Table(str(tmp_path / "cut.parquet"))
    with pytest.raises(ConfigError, match=r"image of row 0 of .*t.parquet is int; needs a path or"):
        Table(write(tmp_path / "t.parquet", rows), image="digit")
    write(tmp_path / "mixed-1.jsonl", rows)
    pq.write_table(pa.table({"image": [b"png"]}), tmp_path / "mixed-2.parquet")
    with pytest.raises(ConfigError, match=r"image of row 0 of .*mixed-2.parquet is bytes; needs"):
        Table(str(tmp_path / "mixed-*"))


@pytest.mark.parametrize("kind", ["stream", "file", "feather"])
@pytest.mark.parametrize("struct", [False, True])
def test_arrow(rows, tmp_path, kind, struct):
    """Arrow IPC in both formats; Hugging Face keeps datasets as streams of {bytes, path}."""
    images = [encoded(i) for i in range(N)]
    images = [{"bytes": image, "path": f"{i}.png"} for i, image in enumerate(images)]
    images = images if struct else [image["bytes"] for image in images]
    table = pa.table(
        {"image": images, "label": DIGITS.target[:N], "tags": [r["tags"] for r in rows]}
    )
    path = tmp_path / ("t.feather" if kind == "feather" else "t.arrow")
    if kind == "feather":
        feather.write_feather(table, path, compression="zstd")
    else:
        new = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
        with new(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=9)
    source = Table(str(path), label="label")
    assert [s.image for s in source] == [encoded(i) for i in range(N)]
    assert [s.label for s in source] == DIGITS.target[:N].tolist()
    assert [s.tags for s in Table(str(path), tags="tags")] == [[1, 2], [], [2, 2, 0], [0]] * 10
    with pytest.raises(ConfigError, match=r"no column 'lable'; did you mean 'label'"):
        Table(str(path), label="lable")
    with pytest.raises(ConfigError, match=r"no column 'zzz'; columns: image"):
        Table(str(path), label="zzz")


def test_broken_arrow(tmp_path):
    table = pa.table({"image": [b"x" * 1000] * 20})
    with pa.ipc.new_stream(str(tmp_path / "t.arrow"), table.schema) as writer:
        writer.write_table(table)
    whole = (tmp_path / "t.arrow").read_bytes()
    for content in (whole[:3000], b"ARROW1 and no more", b"", b"\x89PNG"):
        (tmp_path / "cut.arrow").write_bytes(content)
        with pytest.raises(ConfigError, match=r"cut.arrow cannot be read as Arrow"):
            Table(str(tmp_path / "cut.arrow"))


@pytest.mark.parametrize("image", ["https://a.org/b.jpg", {"path": "s3://a/b.jpg"}])
def test_images_that_are_addresses(tmp_path, image):
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": image}) + "\n")
    with pytest.raises(
        ConfigError, match=r"image of row 0 of .*t.jsonl: '(https|s3)://.*' is an address, and only"
    ):
        Table(str(tmp_path / "t.jsonl"))
