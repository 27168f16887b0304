"""From photographs to a list of duplicates, as a user types it, with the perceptual hash."""

import io

import pytest
from PIL import Image

from vissl_lite import SOURCES, ConfigError
from vissl_lite.duplicates.command import main
from vissl_lite.extract.command import main as extract
from vissl_lite.plugins import load_entries
from vissl_lite.sources.tar_shards import TarShards


@pytest.fixture(scope="module")
def folders(tmp_path_factory, photographs_tar):
    """40 photographs to train on; 5 of them, smaller and compressed, and 15 others as a test set."""
    load_entries()
    folder = tmp_path_factory.mktemp("photographs")
    source = TarShards(str(photographs_tar), index=str(folder / "index"))
    for split in ("train", "test"):
        (folder / split).mkdir()
    for i in range(60):
        image = source[i].image
        image = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image).convert("RGB")
        if i < 40:
            image.save(folder / "train" / f"{i:02}.jpg", quality=95)
        if i < 5 or i >= 45:
            image.reduce(2).save(folder / "test" / f"{i:02}.jpg", quality=40)
    return folder


@pytest.fixture(scope="module")
def features(folders):
    for split in ("train", "test"):
        words = ["perceptual_hash", str(folders / split), "--out", str(folders / f"{split}_hash")]
        assert extract([*words, "--device=cpu"]) == 0
    return [str(folders / f"{split}_hash") for split in ("train", "test")]


@pytest.fixture(autouse=True)
def own_cache(folders, monkeypatch):
    monkeypatch.setenv("VISSL_LITE_CACHE", str(folders / "cache"))


def test_copies_are_found_and_left_out(folders, features, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*features, "--out", str(out), "--threshold=0.8", "--floor=0.2"]) == 0
    said = capsys.readouterr().out
    assert "compared   40 training images" in said
    assert "duplicates 5, cosine 0.8000 or more (given by --threshold)" in said
    rows = [line.split("\t") for line in (out / "duplicates.tsv").read_text().splitlines()]
    assert [index for index, _ in rows[1:]] == ["0", "1", "2", "3", "4"]
    whole = {"name": "image_folder", "path": str(folders / "train")}
    without = {"name": "without", "source": whole, "list": str(out / "duplicates.tsv")}
    kept = SOURCES.build(without)
    assert len(kept) == 35
    assert kept[0].name.endswith("05.jpg")


def test_judged_pairs_choose_the_threshold(folders, features, tmp_path, capsys):
    out, sample = tmp_path / "out", tmp_path / "out" / "sample.tsv"
    main([*features, "--out", str(out), "--threshold=0.9", "--floor=0.2"])
    head, *lines = sample.read_text().splitlines()
    judged = [line.split("\t") for line in lines]
    for row in judged:
        row[0] = str(int(row[3][-6:] == row[4][-6:]))  # the same file name
    sample.write_text("\n".join([head, *("\t".join(row) for row in judged)]) + "\n")
    main([*features, "--out", str(out), "--sample", str(sample), "--floor=0.2"])
    said = capsys.readouterr().out
    assert "precision 1.000, recall 1.000" in said
    assert "duplicates 5, cosine" in said
    assert sample.read_text().splitlines()[1].split("\t")[0] in "01"  # judgements stay


def test_the_page_shows_pairs_and_nothing_from_elsewhere(features, tmp_path):
    out = tmp_path / "out"
    main([*features, "--out", str(out), "--threshold=0.8", "--floor=0.2"])
    page = (out / "pairs.html").read_text()
    assert "5 of 40 training images have a cosine of 0.8000 or more" in page
    assert page.count("data:image/jpeg") >= 20
    assert "http:" not in page
    assert "https:" not in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--threshold=2"], "no cosine; give -1 to 1"),
        (["--threshold=0.5", "--floor=0.9"], "--floor: 0.9 is above the threshold 0.5"),
        (["--layer=res5"], "no features of 'res5'; there are hash"),
    ],
)
def test_mistakes_are_said(features, tmp_path, words, message):
    with pytest.raises(ConfigError, match=message):
        main([*features, "--out", str(tmp_path), *words])


def test_one_set_of_features_is_not_enough(features, tmp_path):
    with pytest.raises(ConfigError, match="then of test images"):
        main([features[0], "--out", str(tmp_path)])
