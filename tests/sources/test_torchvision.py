"""torchvision: FakeData, and MNIST made of scikit-learn's digits in MNIST's own file format."""

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits
from torchvision import datasets

from vissl_lite import ConfigError
from vissl_lite.sources.torchvision import Torchvision

DIGITS = load_digits()


def write_idx(path, array):
    """LeCun's IDX format: 0, 0, type, dimensions, sizes big-endian, values."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


@pytest.fixture
def mnist(tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    digits = DIGITS
    for part, chosen in (("train", slice(0, 50)), ("t10k", slice(50, 60))):
        write_idx(folder / f"{part}-images-idx3-ubyte", digits.images[chosen] * 15)
        write_idx(folder / f"{part}-labels-idx1-ubyte", digits.target[chosen])
    return str(tmp_path)


def test_mnist(mnist):
    train, test = (Torchvision("MNIST", root=mnist, split=split) for split in ("train", "test"))
    assert (len(train), len(test), train.num_classes) == (50, 10, 10)
    assert train.classes[7] == "7 - seven"
    assert np.array_equal(test[4].image, DIGITS.images[54] * 15)
    assert [s.label for s in train] == train.all_labels().tolist() == DIGITS.target[:50].tolist()
    assert pickle.loads(pickle.dumps(test))[9].label == DIGITS.target[59]
    for index in (-1, 50):
        with pytest.raises(IndexError):
            train[index]


def test_fake_data():
    options = {"size": 20, "image_size": [3, 8, 9], "num_classes": 4}
    source = Torchvision("FakeData", split=None, options=options)
    theirs = datasets.FakeData(20, (3, 8, 9), 4)
    assert np.array_equal(source[19].image, theirs[19][0])
    assert [s.label for s in source] == [label for _, label in theirs]
    assert (source.num_classes, source.all_labels()) == (4, None)


def test_targets_that_are_no_class(mnist, monkeypatch):
    source = Torchvision("MNIST", root=mnist)
    monkeypatch.setattr(source.dataset, "targets", source.dataset.targets * 0 - 1)
    assert source[0].label is None
    assert source.all_labels() is None


def test_mistakes(tmp_path):
    with pytest.raises(ConfigError, match=r"no dataset 'CIFAR11'; did you mean 'CIFAR10'"):
        Torchvision("CIFAR11")
    with pytest.raises(ConfigError, match=r"CIFAR10 cannot be opened in .*download: true"):
        Torchvision("CIFAR10", root=str(tmp_path))
    with pytest.raises(ConfigError, match=r"CIFAR10 has train and test, no 'val'"):
        Torchvision("CIFAR10", root=str(tmp_path), split="val")
    with pytest.raises(ConfigError, match=r"STL10 cannot be opened .*Unknown value 'val'"):
        Torchvision("STL10", root=str(tmp_path), split="val")
    with pytest.raises(ConfigError, match=r"FakeData has no parts; set split: null"):
        Torchvision("FakeData")
    with pytest.raises(ConfigError, match=r"no parameter 'sizes'; did you mean 'size'"):
        Torchvision("FakeData", split=None, options={"sizes": 3})
    with pytest.raises(ConfigError, match=r"no parameter 'zzz'; accepted: size, "):
        Torchvision("FakeData", split=None, options={"zzz": 3})
    with pytest.raises(ConfigError, match=r"no dataset 'zzz'; known: "):
        Torchvision("zzz")
