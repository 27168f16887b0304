"""file_list: lists as text and .npy, labels, roots, exclusions, and what is wrong with them."""

import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from vissl_lite import ConfigError
from vissl_lite.sources.file_list import FileList

DIGITS = load_digits()

NAMES = [f"{i % 3}/{i:03d}.png" for i in range(12)]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISSL_LITE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def listed(tmp_path):
    """Twelve digits as PNG below `images`, their list beside it."""
    for i, name in enumerate(NAMES):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((DIGITS.images[i] * 15).astype(np.uint8)).save(path)
    (tmp_path / "images" / "list.txt").write_text(
        "\n".join(NAMES[:5]) + "\r\n\n" + "\n".join(NAMES[5:])
    )
    return tmp_path / "images" / "list.txt"


def test_relative_paths_start_from_the_list(listed):
    source = FileList(str(listed))
    assert [s.name for s in source] == NAMES
    assert np.array_equal(Image.open(source[7].image), DIGITS.images[7] * 15)
    assert source.num_classes is source.classes is source[0].label is None
    assert repr(source) == f"FileList('{listed}', 12 images)"


def test_relative_paths_start_from_root_and_absolute_ones_stay(listed, tmp_path):
    (tmp_path / "list.txt").write_text(f"000.png\n{listed.parent / NAMES[4]}")
    source = FileList(str(tmp_path / "list.txt"), root=str(listed.parent / "0"))
    assert [s.image for s in source] == [str(listed.parent / n) for n in ("0/000.png", NAMES[4])]


@pytest.mark.parametrize("dtype", ["S", "U"])
def test_npy(listed, tmp_path, dtype):
    np.save(tmp_path / "list.npy", np.array(NAMES, dtype))
    source = FileList(str(tmp_path / "list.npy"), root=str(listed.parent))
    assert [s.image for s in source] == [s.image for s in FileList(str(listed))]


def test_labels_are_numbers(listed, tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join(str(i % 3) for i in range(12)))
    np.save(tmp_path / "labels.npy", np.arange(12) % 3)
    for file in ("labels.txt", "labels.npy"):
        source = FileList(str(listed), labels=str(tmp_path / file))
        assert [s.label for s in source] == [0, 1, 2] * 4
        assert (source.num_classes, source.classes) == (3, None)


def test_labels_are_names(listed, tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join(["sea otter", "cat", "007"] * 4))
    source = FileList(str(listed), labels=str(tmp_path / "labels.txt"))
    assert [s.label for s in source] == [2, 1, 0] * 4
    assert source.classes == ["007", "cat", "sea otter"]
    assert source.all_labels().tolist() == [2, 1, 0] * 4


def test_exclude_takes_the_labels_along(listed, tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join(map(str, range(12))))
    (tmp_path / "bad.txt").write_text(f"{NAMES[0]}\n{NAMES[5].split('/')[1]}\n")
    source = FileList(
        str(listed), labels=str(tmp_path / "labels.txt"), exclude=str(tmp_path / "bad.txt")
    )
    assert [(s.name, s.label) for s in source] == [
        (NAMES[i], i) for i in range(12) if i not in (0, 5)
    ]


def test_changed_list_is_read_again(listed):
    assert len(FileList(str(listed))) == 12
    listed.write_text("\n".join(NAMES[:4]))
    assert len(FileList(str(listed))) == 4


def test_pickled_source_is_small_and_reads(listed):
    source = pickle.loads(pickle.dumps(FileList(str(listed))))
    assert source[11].name == NAMES[11]
    with pytest.raises(IndexError):
        source[12]
    with pytest.raises(IndexError):
        source[-1]


def test_missing_image_is_left_to_decoding(tmp_path):
    (tmp_path / "list.txt").write_text("gone.png\n")
    assert FileList(str(tmp_path / "list.txt"))[0].image == str(tmp_path / "gone.png")


def test_more_rows_than_a_writer_collects(tmp_path):
    names = [f"{i % 97}/{i}.jpg" for i in range(140_000)]
    (tmp_path / "list.txt").write_text("\n".join(names))
    source = FileList(str(tmp_path / "list.txt"))
    assert len(source) == 140_000
    assert all(source[i].name == names[i] for i in (0, 65535, 65536, 131071, 131072, 139999))


def test_mistakes(listed, tmp_path):
    with pytest.raises(ConfigError, match=r"did you mean 'list.txt'"):
        FileList(str(listed.with_name("lists.txt")))
    with pytest.raises(ConfigError, match=r"is a folder; name a file"):
        FileList(str(listed.parent))
    np.save(tmp_path / "objects.npy", np.array(NAMES, object), allow_pickle=True)
    with pytest.raises(ConfigError, match=r"without unpickling.*dtype=str"):
        FileList(str(tmp_path / "objects.npy"))
    np.save(tmp_path / "floats.npy", np.zeros((3, 2)))
    with pytest.raises(ConfigError, match=r"holds float64 of shape \(3, 2\)"):
        FileList(str(tmp_path / "floats.npy"))
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(ConfigError, match=r"names no image"):
        FileList(str(tmp_path / "empty.txt"))
    (tmp_path / "labels.txt").write_text("1\n2\n")
    with pytest.raises(ConfigError, match=r"line 3 has no label"):
        FileList(str(listed), labels=str(tmp_path / "labels.txt"))
    (tmp_path / "labels.txt").write_text("1\n" * 14)
    with pytest.raises(ConfigError, match=r"14 labels for 12 paths"):
        FileList(str(listed), labels=str(tmp_path / "labels.txt"))
    (tmp_path / "labels.txt").write_text("-1\n" * 12)
    with pytest.raises(ConfigError, match=r"found -1 to -1; number the classes from 0"):
        FileList(str(listed), labels=str(tmp_path / "labels.txt"))
