"""tar_shards: webdataset's layout by offset, hostile and broken archives."""

import io
import json
import os
import pickle
import tarfile

import numpy as np
import pytest
from conftest import data_folder
from PIL import Image
from sklearn.datasets import load_digits

from vissl_lite import ConfigError
from vissl_lite.sources._tar import expand_braces
from vissl_lite.sources.tar_shards import TarShards, _opened

DIGITS = load_digits()


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISSL_LITE_CACHE", str(tmp_path / "cache"))


def encoded(i):
    stream = io.BytesIO()
    Image.fromarray((DIGITS.images[i] * 15).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def pack(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def sample(i, folder="train/"):
    """Members of digit i: image, class, metadata, tags as text."""
    digit = int(DIGITS.target[i])
    about = {"label": f"d{digit}", "tags": ["Digit", f"#{digit}"]}
    return [
        (f"{folder}{i:04d}.png", encoded(i)),
        (f"{folder}{i:04d}.cls", f"{digit}\n".encode()),
        (f"{folder}{i:04d}.json", json.dumps(about).encode()),
        (f"{folder}{i:04d}.txt", f"#digit #{digit}".encode()),
    ]


@pytest.fixture
def shards(tmp_path):
    for number in range(3):
        members = [m for i in range(10 * number, 10 * number + 10) for m in sample(i)]
        pack(tmp_path / f"digits-{number:03d}.tar", members)
    return tmp_path


def test_every_image_comes_back(shards):
    source = TarShards(str(shards / "digits-{000..002}.tar"), label="cls")
    assert len(source) == 30
    assert source.all_labels().tolist() == DIGITS.target[:30].tolist()
    assert (source.num_classes, source.classes) == (10, None)
    for i in (29, 0, 10, 9):
        assert source[i].image == encoded(i)
        assert source[i].label == DIGITS.target[i]
    assert source[12].name == "digits-001.tar:train/0012.png"


@pytest.mark.parametrize("tags", ["txt", "json:tags"])
def test_tags(shards, tags):
    source = TarShards(str(shards / "digits-*.tar"), tags=tags)
    assert source.classes == [*"0123456789", "digit"]
    assert [s.tags for s in source] == [[10, digit] for digit in DIGITS.target[:30]]


def test_label_from_json_and_without_any(shards):
    source = TarShards(str(shards / "digits-{000,002}.tar"), label="json:label")
    assert source.classes == [f"d{digit}" for digit in range(10)]
    assert len(source) == 20
    source = TarShards(str(shards / "digits-000.tar"))
    assert source.num_classes is source[0].label is source[0].tags is None


def test_vocabulary(shards):
    (shards / "words.txt").write_text("digit\n7\n")
    source = TarShards(
        str(shards / "digits-*.tar"), tags="txt", vocabulary=str(shards / "words.txt")
    )
    assert source[6].tags == [0]
    assert source[7].tags == [0, 1]


def test_pickle_and_range(shards):
    source = TarShards(str(shards / "digits-*.tar"), label="cls")
    source[0]
    assert pickle.loads(pickle.dumps(source))[29].image == encoded(29)
    for index in (-1, 30):
        with pytest.raises(IndexError):
            source[index]


def test_replaced_shard_is_read_anew(shards):
    assert TarShards(str(shards / "digits-000.tar"))[0].image == encoded(0)
    pack(shards / "new.tar", sample(25))
    os.replace(shards / "new.tar", shards / "digits-000.tar")
    assert [s.image for s in TarShards(str(shards / "digits-000.tar"))] == [encoded(25)]


def test_a_shard_rewritten_under_its_reader_stops_it(shards):
    source = TarShards(str(shards / "digits-*.tar"), label="cls")
    assert source[0].image == encoded(0)
    pack(shards / "digits-000.tar", [m for i in range(9, -1, -1) for m in sample(i)])
    with pytest.raises(ConfigError, match=r"digits-000.tar changed while it was being read; start"):
        source[0]
    assert source[10].image == encoded(10)


def test_a_shard_replaced_under_its_reader(shards):
    """Who holds the old one open reads on in it; whoever opens the new one stops."""
    source = TarShards(str(shards / "digits-000.tar"), label="cls")
    worker = pickle.loads(pickle.dumps(source))
    assert source[0].image == encoded(0)
    os.utime(shards / "digits-001.tar", ns=(0, 0))  # both are of one size
    os.replace(shards / "digits-001.tar", shards / "digits-000.tar")
    assert source[1].image == encoded(1)
    _opened.cache_clear()  # as in another process
    with pytest.raises(ConfigError, match=r"digits-000.tar changed while it was being read"):
        worker[1]
    os.remove(shards / "digits-000.tar")
    _opened.cache_clear()
    with pytest.raises(ConfigError, match=r"digits-000.tar is gone; bring it back, then go on"):
        source[1]


def test_names_of_members_are_never_paths(tmp_path):
    """What would overwrite or read files outside if it were extracted is plain data here."""
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"untouched")
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        for name in ("../outside.png", str(outside), "a/../../outside.png"):
            info = tarfile.TarInfo(name)
            info.size = len(encoded(0))
            tar.addfile(info, io.BytesIO(encoded(0)))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = kind, str(outside)
            tar.addfile(link)
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    source = TarShards(str(tmp_path / "evil.tar"))
    assert [s.image for s in source] == [encoded(0)] * 3  # links are no images
    assert outside.read_bytes() == b"untouched"
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} == before


def test_dots_in_names_and_files_of_macos(tmp_path):
    members = [
        ("._0.jpg", b"x"),
        ("0.tar.v2.jpg", b"a"),
        ("long/" * 60 + "1.JPEG", b"b"),
        ("2.seg.png", b"c"),
    ]
    assert [s.image for s in TarShards(pack(tmp_path / "t.tar", members))] == [b"a", b"b", b"c"]


def test_broken_archives(shards):
    whole = (shards / "digits-001.tar").read_bytes()
    for name, content in (
        ("data", whole[: len(whole) // 2 - 100]),
        ("header", whole[: 512 * 2 + 200]),
        ("damaged", whole[:1024] + b"\1" * 512 + whole[1536:]),
    ):
        (shards / f"{name}.tar").write_bytes(content)
        with pytest.raises(ConfigError, match=rf"{name}.tar is cut off, compressed or no tar file"):
            TarShards(str(shards / f"{name}.tar"))
    pack(shards / "gz.tar", sample(0), "w:gz")
    with pytest.raises(ConfigError, match=r"needs a whole, uncompressed one"):
        TarShards(str(shards / "gz.tar"))


def test_mistakes(shards, tmp_path):
    one = str(shards / "digits-000.tar")
    with pytest.raises(ConfigError, match=r"label and tags; name one"):
        TarShards(one, label="cls", tags="txt")
    with pytest.raises(
        ConfigError, match=r"digits-003.tar' does not exist; .*did you mean 'digits-00"
    ):
        TarShards(str(shards / "digits-{000..003}.tar"))
    for address in ("https://h/x-{000..003}.tar", "s3://bucket/*.tar"):
        with pytest.raises(
            ConfigError, match=r"^tar_shards.path: .* is an address, and only .*=packed$"
        ):
            TarShards(address)
    with pytest.raises(ConfigError, match=r"no file fits"):
        TarShards(str(shards / "photos-*.tar"))
    with pytest.raises(ConfigError, match=r"0000.png in .* has no label"):
        TarShards(one, label="class")
    with pytest.raises(
        ConfigError,
        match=r"0000.json in .*no JSON object with a field 'lable'; did you mean 'label'",
    ):
        TarShards(one, label="json:lable")
    with pytest.raises(ConfigError, match=r"no images in .*none.tar, looked for .jpg"):
        TarShards(pack(tmp_path / "none.tar", [("a.cls", b"1")]))
    with pytest.raises(ConfigError, match=r"has 2 images; give each a key of its own"):
        TarShards(pack(tmp_path / "two.tar", [("a.jpg", b"1"), ("a.png", b"1")]))


def test_braces():
    assert expand_braces("x-{08..10}.tar") == ["x-08.tar", "x-09.tar", "x-10.tar"]
    assert expand_braces("{a,b}/{0..1}.tar") == ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]
    assert expand_braces("plain{1}.tar") == ["plain{1}.tar"]


def test_real_photographs():
    if data_folder() is None:
        pytest.skip("no real images; set VISSL_LITE_DATA")
    path = data_folder() / "imagenet-samples-250.tar"
    source = TarShards(str(path))
    assert len(source) == 250
    with tarfile.open(path) as tar:
        members = [m for m in tar.getmembers() if m.isfile()][::50]
        theirs = {f"{path.name}:{m.name}": tar.extractfile(m).read() for m in members}
    ours = {s.name: s.image for s in source if s.name in theirs}
    assert ours == theirs
    assert len(ours) == 5
