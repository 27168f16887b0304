"""From photographs to a list of duplicates, as a user types it, with the perceptual hash."""

import io

import numpy as np
import pytest
from PIL import Image

from vissl_lite import SOURCES, ConfigError
from vissl_lite.duplicates import command as module
from vissl_lite.duplicates.command import main
from vissl_lite.duplicates.find import Pairs
from vissl_lite.duplicates.threshold import choose, read_sample
from vissl_lite.extract.command import main as extract
from vissl_lite.plugins import load_entries
from vissl_lite.sources.tar_shards import TarShards


@pytest.fixture(scope="module")
def folders(tmp_path_factory, photographs_tar):
    """40 photographs to train on; 5 of them, smaller and compressed, and 15 others to test on."""
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


def test_the_page_shows_the_pairs_that_the_sample_has(features, tmp_path):
    out = tmp_path / "out"
    main([*features, "--out", str(out), "--threshold=0.8", "--floor=0.2", "--judge=10"])
    rows = [line.split("\t") for line in (out / "sample.tsv").read_text().splitlines()[1:]]
    main([*features, "--out", str(out), "--threshold=0.9", "--floor=0.1"])  # other pairs
    page = (out / "pairs.html").read_text()
    for _, cosine, _, train, test, number in rows:
        shown = page.partition(f"pair {number}: {float(cosine):.4f}<")[2].partition("</figure>")
        assert shown[0]
        assert f"{train}<br>{test}</figcaption" in page


def test_equal_images_have_the_threshold_1(features, tmp_path, capsys):
    main([features[0], features[0], "--out", str(tmp_path), "--threshold=1"])
    assert "duplicates 40," in capsys.readouterr().out


def test_a_threshold_at_a_judged_pair_does_not_miss_it(tmp_path):
    cosine, index = np.array([0.99999994, 0.87499962], np.float32), np.arange(2)
    pairs, names = Pairs(index, index, index, cosine, 2, index), [("a", "b"), ("c", "d")]
    numbers = module._write_sample(tmp_path / "sample.tsv", pairs, names, 100)
    assert numbers == {1: 1, 2: 0}
    text = (tmp_path / "sample.tsv").read_text()
    (tmp_path / "sample.tsv").write_text(text.replace("\n\t", "\n1\t"))  # all the same
    threshold, _ = choose(*read_sample(tmp_path / "sample.tsv"))
    assert (cosine >= threshold).all()


def test_images_that_have_gone_leave_a_page_of_names(folders, features, tmp_path):
    (folders / "test").rename(folders / "moved")
    try:
        assert main([*features, "--out", str(tmp_path), "--threshold=0.8"]) == 0
    finally:
        (folders / "moved").rename(folders / "test")
    assert (tmp_path / "pairs.html").read_text().count("00.jpg: cannot be read") >= 1
    assert len((tmp_path / "duplicates.tsv").read_text().splitlines()) == 6


def test_a_file_is_no_folder_for_results(features, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--out: .*file cannot be made"):
        main([*features, "--out", str(tmp_path / "file")])


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
        (["--judge=-3"], "'-3' is no whole number from 10"),
    ],
)
def test_mistakes_are_said(features, tmp_path, words, message):
    with pytest.raises(ConfigError, match=message):
        main([*features, "--out", str(tmp_path), *words])


def test_one_set_of_features_is_not_enough(features, tmp_path):
    with pytest.raises(ConfigError, match="then of test images"):
        main([features[0], "--out", str(tmp_path)])
