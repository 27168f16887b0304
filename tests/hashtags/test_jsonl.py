"""JSONL in which a line is odd: by pyarrow or line by line, only lines without a row are lost."""

import json

import pytest

from vissl_lite import ConfigError
from vissl_lite.hashtags import jsonl
from vissl_lite.hashtags.read import Captions, Columns

BOTH = Columns("image", "caption", "tags")


def read(file, text, columns=BOTH):
    """Rows as (image, caption, tags), and how many lines were malformed."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    captions, rows = Captions([file], columns), []
    for images, texts in captions:
        found = (texts.captions or [None] * len(images)), (texts.tags or [None] * len(images))
        rows += [tuple(map(plain, row)) for row in zip(images, *found)]
    return rows, captions.skipped["malformed"]


def plain(value):
    value = value.as_py() if hasattr(value, "as_py") else value
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def lines(*rows):
    return "".join(row + "\n" for row in rows)


A, B = '{"image": "a", "caption": "#x", "tags": ["t"]}', ("a", "#x", ["t"])
ODD = {
    "null, later lists": ('{"image": "b", "tags": null}', ("b", None, None)),
    "an absent key": ('{"image": "b", "tags": []}', ("b", None, [])),
    "a lone surrogate": (
        r'{"image": "b", "caption": "#y \ud83d", "tags": ["\ud83d\udc3b"]}',
        ("b", "#y \ufffd\ufffd\ufffd", ["🐻"]),
    ),
    "a number as caption": ('{"image": "b", "caption": 7, "tags": []}', ("b", "7", [])),
    "another number": ('{"image": 2.50, "caption": -1e3, "tags": []}', ("2.50", "-1e3", [])),
    "an id": ('{"image": 12, "caption": "", "tags": []}', ("12", "", [])),
    "tags as text": ('{"image": "b", "tags": "u, #v w"}', ("b", None, ["u", "#v", "w"])),
    "numbers as tags": ('{"image": "b", "tags": [1, null]}', ("b", None, ["1", None])),
    "a truncated line": ('{"image": "b", "capt', None),
    "two commas": ('{"image": "b",, "caption": "#y"}', None),
    "a truncated number": ("3", None),
    "a list": ("[1]", None),
    "an object as caption": ('{"image": "b", "caption": {"c": 1}}', None),
    "true as caption": ('{"image": "b", "caption": true}', None),
    "a list as caption": ('{"image": "b", "caption": ["c"]}', None),
    "a list within a list": ('{"image": "b", "tags": [["c"]]}', None),
    "a key twice": ('{"image": "a", "image": "b"}', ("b", None, None)),
}


@pytest.mark.parametrize("where", ["first", "last"])
@pytest.mark.parametrize("name", ODD)
def test_one_odd_line(tmp_path, name, where):
    odd, row = ODD[name]
    text, rows = lines(A, A, A), [B, B, B]
    place = 0 if where == "first" else len(rows)
    text = odd + "\n" + text if where == "first" else text + odd
    rows[place:place] = [] if row is None else [row]
    assert read(tmp_path / "t.jsonl", text) == (rows, int(row is None))


def test_ids_that_mix_numbers_and_text(tmp_path):
    rows = [{"image": image, "caption": "#x"} for image in (1, 2, "b2", 3)]
    found, _ = read(
        tmp_path / "t.jsonl", lines(*map(json.dumps, rows)), Columns("image", "caption", None)
    )
    assert [image for image, *_ in found] == ["1", "2", "b2", "3"]


def test_a_line_that_is_null(tmp_path):
    """It has no image. pyarrow crashes where it is the first of a block."""
    for text in (lines("null", A), lines(A, "null"), lines("null", A, "{")):
        assert read(tmp_path / "t.jsonl", text)[0] == [B]


def test_byte_order_mark_and_empty_files(tmp_path):
    assert read(tmp_path / "t.jsonl", b"\xef\xbb\xbf" + A.encode()) == ([B], 0)
    assert read(tmp_path / "t.jsonl", "") == read(tmp_path / "t.jsonl", "\n \n") == ([], 0)


def test_bytes_that_are_no_utf8(tmp_path):
    """They stay in the texts, for the build to count, however the block is read."""
    odd = b'{"image": "b", "caption": "caf\xe9", "tags": []}\n'
    for more, left_out in ((b"", 0), (b"{", 1)):
        rows, malformed = read(tmp_path / "t.jsonl", odd + A.encode() + b"\n" + more)
        assert [image for image, *_ in rows] == ["b", "a"]
        assert rows[0][1].startswith("caf\ufffd")
        assert malformed == left_out


def test_blocks_of_other_types(tmp_path, monkeypatch):
    """Each may be refused, and is halved; types that a part had are tried on the next one."""
    monkeypatch.setattr(jsonl, "BLOCK", 1 << 13)
    monkeypatch.setattr(jsonl, "PIECE", 1 << 10)
    parsed, plainly = [], jsonl._line_by_line
    monkeypatch.setattr(jsonl, "_line_by_line", lambda *a: parsed.append(1) or plainly(*a))
    rows: list[dict] = [{"image": i} for i in range(200)]
    rows += [{"image": f"b{i}", "caption": "#x", "tags": "u v"} for i in range(200)]
    rows += [{"image": f"c{i}", "caption": None, "tags": ["u", "v"]} for i in range(200)]
    rows[0] |= {"caption": "#y", "tags": None}
    found, malformed = read(tmp_path / "t.jsonl", lines(*map(json.dumps, rows)))
    assert [row[0] for row in found] == [str(row["image"]) for row in rows]
    assert [row[2] for row in found] == [None] * 200 + [["u", "v"]] * 400
    assert malformed == 0
    assert 2 <= len(parsed) <= 5 < (tmp_path / "t.jsonl").stat().st_size >> 11


MISTAKES = {
    "[1]\n": r"line 1 is no JSON object; needs one per line",
    '[\n{"image": "a"},\n]': r"line 1 is no JSON object",
    '{"image": "a", "tags": "b"}\n': r"no column 'caption'; name .* there are: image, tags",
    '{"image": "a", "captoin": "b", "tags": "b"}\n': r"no column 'caption'; did you mean 'captoin'",
    '{"image": "a", "caption": ["b"], "tags": []}': (
        r"line 1 has a list as 'caption', needs text; name a column of lists with --tags-column"
    ),
    '\n{"image": "a", "caption": {"b": 1}, "tags": []}': r"line 2 has an object as 'caption'",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes(tmp_path, text):
    with pytest.raises(ConfigError, match=MISTAKES[text]):
        read(tmp_path / "t.jsonl", text)
