"""The command as a user types it: every kind of source, options, verify, info, mistakes."""

import io
import re
import tarfile

import numpy as np
import pytest
from command import command
from PIL import Image

from vissl_lite import ConfigError
from vissl_lite.plugins import load_entries
from vissl_lite.shards.command import main
from vissl_lite.sources.packed import Packed
from vissl_lite.words import source_config

load_entries()
N = 6


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISSL_LITE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path):
    """Six photographs of noise, 64 x 48, in two classes: as a folder, tar, table and list."""
    folder, rows = tmp_path / "photos", ["image,label"]
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for i in range(N):
            path = folder / "ab"[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(i).integers(0, 256, (48, 64, 3), np.uint8)
            Image.fromarray(pixels).save(path)
            tar.add(path, f"{i}.png")
            info = tarfile.TarInfo(f"{i}.cls")
            info.size = 1
            tar.addfile(info, io.BytesIO(str(i % 2).encode()))
            rows.append(f"{path},{'ab'[i % 2]}")
    (tmp_path / "photos.csv").write_text("\n".join(rows))
    (tmp_path / "photos.txt").write_text("\n".join(row.split(",")[0] for row in rows[1:]))
    return tmp_path


def built(data, *words):
    """The shards that a command builds."""
    out = data / "out"
    assert main(["build", *map(str, words), "--out", str(out), "--workers", "1"]) == 0
    return Packed(str(out))


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (["photos"], [0, 0, 0, 1, 1, 1]),
        (["photos", "classes=none"], None),
        (["photos.tar", "label=cls"], [0, 1] * 3),
        (["phot*.tar"], None),
        (["photos.csv", "label=label"], [0, 1] * 3),
        (["photos.txt"], None),
        (["synthetic", "n=6", "size=48", "num_classes=3"], [0, 1, 2] * 2),
    ],
)
def test_every_kind_of_source(data, words, labels, monkeypatch, capsys):
    monkeypatch.chdir(data)
    source = built(data, *words)
    assert len(source) == N
    found = source.all_labels()
    assert (None if found is None else found.tolist()) == labels
    assert capsys.readouterr().out.splitlines()[1] == "  images        6, encoded, as in the source"


def test_shards_are_a_source_too(data):
    built(data, data / "photos")
    assert main(["build", str(data / "out"), "--out", str(data / "again"), "--workers=1"]) == 0
    one, other = (Packed(str(data / name)) for name in ("out", "again"))
    assert [one[i] for i in range(N)] == [other[i] for i in range(N)]
    assert one.classes == other.classes == ["a", "b"]


def test_source_of_a_recipe():
    words = ["config=quickstart", "data/source=synthetic", "data.source.n=7"]
    assert source_config(words, "shards build")["name"] == "synthetic"
    assert source_config(words, "shards build")["n"] == 7


def test_options(data, capsys):
    source = built(data, data / "photos", "--short-side", "32", "--raw")
    assert source[0].image.shape == (32, 43, 3)
    out = capsys.readouterr().out
    assert "SwAV's small crops, 5 to 14 % of an image, are 7 to 12 pixels wide" in out
    assert "6, pixels, not encoded" in out
    assert main(["info", str(data / "out")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown == out.splitlines()[1:]
    assert shown[2:4] == ["  short side    at most 32", "  targets       labels, 2 classes"]
    assert shown[4].startswith(f"  size          {6 * 32 * 43 * 3 / 1024:.1f} KiB in 1 files")


def test_verify_names_what_is_damaged(data, capsys):
    source = built(data, data / "photos")
    assert main(["verify", str(data / "out")]) == 0
    file = data / "out" / "data-00000.bin"
    content = bytearray(file.read_bytes())
    places = source._places.array().reshape(N, 6)
    content[places[2, 1] + 5] ^= 1
    content[places[4, 1]] ^= 128
    file.write_bytes(content)
    names = source.columns / "names.values.npy"
    names.write_bytes(names.read_bytes()[:-1] + b"!")
    capsys.readouterr()
    assert main(["verify", str(data / "out")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "names.values.npy: does not fit its checksum" in lines[0]
    assert [line.split(":")[0] for line in lines[1:3]] == ["a/4.png", "b/3.png"]
    assert lines[3].endswith("3 damaged")
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bild"], r"unknown 'bild'; did you mean 'build'\?"),
        (["build", "x"], r"the following arguments are required: --out"),
        (["build", "--out", "y"], r"the following arguments are required: SOURCE"),
        (
            ["build", "digits", "--out", "y", "--quality=96"],
            r"'96' is no whole number from 1 to 95",
        ),
        (["build", "digits", "--out", "y", "--shard-size=4"], r"'4' is no number between 0 and 4"),
        (["build", "digits", "--out", "y", "--rw"], r"unrecognized arguments: --rw"),
        (["build", "a.tar", "b.tar", "--out", "y"], r"'b.tar' is no key=value; put a pattern"),
        (["build", "digts", "--out", "y"], r"'digts' is no folder.*did you mean 'digits'"),
        (["build", "/no/such", "--out", "y"], r"'/no/such' does not exist; the nearest that does"),
        (["build", "digits", "splt=x", "--out", "y"], r"unknown key 'splt'.*did you mean 'split'"),
        (["build", "digits", "--out", "s3://b/y"], r"--out s3://b/y is an address, .*copy that to"),
        (["build", "digits", "--out", "file"], r"--out .*/file is a file; name a folder"),
        (["build", "digits", "--out", "y", "--raw", "--quality=50"], r"--raw keeps pixels, which"),
        (["build", "digits", "--out", "y", "--quality=50"], r"without --short-side none is"),
        (["build", "./in", "--out", "in/y"], r"--out .*/in/y is inside in, whose images it packs"),
        (
            ["build", "subset", "source={name: image_folder, path: link}", "--out", "in/y"],
            r"is inside link, whose images",
        ),
        (["info"], r"shards info: needs one folder or address, got 0"),
        (["info", "/etc"], r"/etc has no shards.json; run: vissl-lite shards build"),
    ],
)
def test_mistakes(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    with pytest.raises(ConfigError, match=message):
        main(words)
    assert not (tmp_path / "y").exists()
    assert not list((tmp_path / "in").iterdir())
    assert not (tmp_path / "s3:").exists()


def test_help(capsys):
    assert main([]) == main(["build", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--short-side N" in out
    assert max(map(len, out.splitlines())) <= 100


def test_as_a_program(data):
    """What cannot be written is one sentence and exit code 1, a mistake is exit code 2."""
    stopped = command("shards", "build", "photos", "--out", "photos.csv/out", cwd=data)
    assert (stopped.returncode, stopped.stdout) == (1, "")
    assert re.fullmatch(r"shards build: .*/photos.csv/out: Not a directory; .*\n", stopped.stderr)
    wrong = command("shards", "build", "photos", cwd=data)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("config error\n  shards build: the following arguments")
